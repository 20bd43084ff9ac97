"""The models that a manifest names, where a key may be left out."""

from regstream.manifest.references import ModelRef
from regstream.manifest.schema import Candidate, Manifest


def template_model(manifest: Manifest) -> ModelRef:
    """The model whose class, config and tokenizer the result has: the base, or without one the first candidate's."""
    return model_of(manifest, manifest.candidates[0]) if manifest.merge.base is None else manifest.merge.base


def model_of(manifest: Manifest, candidate: Candidate) -> ModelRef:
    """A candidate's model, or the one under its adapter."""
    reference = candidate.model or manifest.merge.base
    assert reference is not None  # validation of a manifest asks for one of both
    return reference


def template_label(manifest: Manifest) -> str:
    """What messages call the checkpoint of `template_model`."""
    return "base" if manifest.merge.base is not None else f'candidate "{manifest.candidates[0].name}"'

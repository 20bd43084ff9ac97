"""Leaves out models that lack what an evaluation runs: a merge does not read every part of every candidate."""

from collections.abc import Collection, Iterable, Iterator

from regstream.checkpoint.checkpoint import Checkpoint
from regstream.evaluation.layerwise_pass import OpenedModel
from regstream.events import Listener, Warned
from regstream.models.layered_model import LayeredModel


def complete_models(
    models: Iterable[OpenedModel], model: LayeredModel, names: Collection[str], listener: Listener
) -> Iterator[OpenedModel]:
    """Yield the models that have each of these tensors, as the base has it; warns of the others."""
    for opened in models:
        problems = (problem for c in opened.checkpoints if (problem := _problem(c, model, names)))
        if problem := next(problems, None):
            listener(Warned(message=f"{opened.name} is not evaluated: {problem}"))
        else:
            yield opened


def _problem(checkpoint: Checkpoint, model: LayeredModel, names: Collection[str]) -> str | None:
    for name in names:
        own, shape = checkpoint.tensors.get(name), model.shapes[name]
        if own is None:
            return f"{checkpoint.label} has no {name}"
        # A candidate may have further rows of vocabulary, which are not read.
        if own.shape[1:] != shape[1:] or own.shape[:1] < shape[:1]:
            return f"{name} of {checkpoint.label} has shape {list(own.shape)}, not {list(shape)} as the base's"
    return None

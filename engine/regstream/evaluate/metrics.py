"""Which metric judges a model, with its datasets opened and found fit for it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from regstream.calibration import CalibrationSet, PixelRows, TokenRows, load_calibration
from regstream.errors import InputError, ManifestError
from regstream.evaluate.accuracy import Accuracy, Head, read_head
from regstream.evaluate.loss import HeldOutLoss
from regstream.events import Listener, Warned
from regstream.manifest import Candidate
from regstream.plan import Plan


def metric_of(plan: Plan, listener: Listener) -> HeldOutLoss | Accuracy:
    """The metric for a plan's model.

    Raises:
        ManifestError: no candidate has a [candidates.evaluation] table, or nothing judges such a model.
        InputError: rows or heads cannot be used.
    """
    judged = [candidate for candidate in plan.manifest.candidates if candidate.evaluation is not None]
    if not judged:
        raise ManifestError("evaluate: no candidate has a [candidates.evaluation] table")
    family = plan.base.family
    if family.model_class == "AutoModelForCausalLM":
        return HeldOutLoss({candidate.name: _texts(candidate, plan, listener) for candidate in judged})
    if family.pooled:
        projection_PD = _projection(plan)
        return Accuracy(
            {candidate.name: _images(candidate, plan, listener) for candidate in judged},
            {candidate.name: _head(candidate, plan, projection_PD) for candidate in judged},
        )
    raise ManifestError(f"evaluate: nothing here judges a {family.name} model; language and vision models are judged")


def held_out_rows(plan: Plan, listener: Listener) -> dict[str, CalibrationSet]:
    """The rows of every [candidates.evaluation] table, by their candidates; what they are judged by is not asked.

    Raises:
        InputError: rows cannot be used.
    """
    judged = (candidate for candidate in plan.manifest.candidates if candidate.evaluation is not None)
    return {candidate.name: _rows(candidate, plan, listener) for candidate in judged}


def _texts(candidate: Candidate, plan: Plan, listener: Listener) -> TokenRows:
    rows = _rows(candidate, plan, listener)
    assert isinstance(rows, TokenRows)
    with _told_of(candidate):
        if not any(length > 1 for batch in rows.batches for length in batch.lengths):
            raise InputError("no row has a second token to predict")
    return rows


def _images(candidate: Candidate, plan: Plan, listener: Listener) -> PixelRows:
    rows = _rows(candidate, plan, listener)
    assert isinstance(rows, PixelRows)
    with _told_of(candidate):
        rows.labels(0)
    return rows


def _rows(candidate: Candidate, plan: Plan, listener: Listener) -> CalibrationSet:
    assert candidate.evaluation is not None
    with _told_of(candidate):
        return load_calibration(
            candidate.evaluation,
            family=plan.base.family,
            config=plan.base.config,
            base=plan.base.folder,
            seed=plan.manifest.merge.seed,
            warn=lambda message: listener(Warned(message=message)),
        )


def _head(candidate: Candidate, plan: Plan, projection_PD: Tensor | None) -> Head:
    assert candidate.evaluation is not None
    path = candidate.evaluation.head
    if path is None:
        raise ManifestError(
            f'candidate "{candidate.name}": evaluation: head is missing; name a .safetensors file with a weight'
            " (classes, features)"
        )
    with _told_of(candidate):
        return read_head(path, plan.model.hidden_size, projection_PD)


def _projection(plan: Plan) -> Tensor | None:
    """What a whole CLIP projects its pooled features with, from the base where that is one."""
    spec = plan.base.besides.tensors.get("visual_projection.weight")
    if spec is None:
        return None
    projection_PD = torch.empty(spec.shape, dtype=torch.float32)
    plan.base.besides.read({"visual_projection.weight": projection_PD})
    return projection_PD


@contextmanager
def _told_of(candidate: Candidate) -> Iterator[None]:
    """Say whose evaluation it is that went wrong."""
    try:
        yield
    except InputError as error:
        raise InputError(f'candidate "{candidate.name}": evaluation: {error}') from error

"""Representation bias: the distance of a merged model's hidden states from each candidate's, on its held-out rows.

Source: Yang et al., "Representation Surgery for Multi-Task Model Merging" (ICML 2024).

Shape suffixes: T tokens, D features.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.functional import cosine_similarity

from regstream.data.loading import CalibrationSet
from regstream.errors import ManifestError
from regstream.evaluate.evaluated_model import EvaluatedModel, evaluated_models
from regstream.evaluate.layerwise import LayerwiseForward
from regstream.evaluate.metrics import held_out_rows
from regstream.events import Listener, StepStarted, ignore_event
from regstream.plan.plan import Plan
from regstream.storage.run_folder import evaluation_folder


@dataclass(frozen=True, kw_only=True)
class RepresentationBias:
    """A model's mean distance over the tokens of a candidate's rows. Depth d is the input of block d."""

    model: str
    dataset: str
    depth: int
    l1: float  # mean absolute difference of a feature
    cosine: float  # 1 - cosine similarity


def representation_bias(
    plan: Plan, *, also: Mapping[str, Path] | None = None, only: Collection[str] = (), listener: Listener = ignore_event
) -> list[RepresentationBias]:
    """The bias of the mean, the result and `also` others at every depth; `only` selects some of these models.

    All models advance block by block together; one block of one model is in memory at a time.

    Raises:
        ManifestError: no candidate has a [candidates.evaluation] table, or `only` names an unknown model.
        InputError: rows or checkpoints cannot be used, or the merge has no result yet.
    """
    datasets = held_out_rows(plan, listener)
    if not datasets:
        raise ManifestError("bias: no candidate has a [candidates.evaluation] table")
    compared = evaluated_models(plan, also or {}, only or ("mean", plan.method.name, *(also or {})))
    candidates = [model for model in evaluated_models(plan, {}) if model.name in datasets and model.is_candidate]

    with ExitStack() as stack:
        state = stack.enter_context(evaluation_folder(plan.run_folder))

        def start(number: int, model: EvaluatedModel, rows: Mapping[str, CalibrationSet]) -> LayerwiseForward:
            folder = state / str(number)
            return stack.enter_context(
                LayerwiseForward(model.name, plan.model, model.open(), rows, folder=folder, listener=listener)
            )

        own = [start(number, model, {model.name: datasets[model.name]}) for number, model in enumerate(candidates)]
        merged = [start(len(own) + number, model, datasets) for number, model in enumerate(compared)]
        return list(_biases(own, merged, listener))


def _biases(
    own: list[LayerwiseForward], merged: list[LayerwiseForward], listener: Listener
) -> Iterator[RepresentationBias]:
    runs = [forward.depths() for forward in (*own, *merged)]
    for depth in range(len(own[0].model.blocks) + 1):
        listener(StepStarted(index=depth, name=f"depth {depth}", work=len(runs)))
        for run in runs:
            next(run)
        for model in merged:
            for candidate in own:
                l1, cosine = _distances(candidate, model, depth)
                yield RepresentationBias(model=model.label, dataset=candidate.label, depth=depth, l1=l1, cosine=cosine)


def _distances(candidate: LayerwiseForward, model: LayerwiseForward, depth: int) -> tuple[float, float]:
    """The mean absolute difference of features, and 1 minus the mean cosine of tokens; summed in float64."""
    sums, count = torch.zeros(2, dtype=torch.float64), 0
    stored = (map(torch.Tensor.float, forward.read(candidate.label, depth)) for forward in (candidate, model))
    for own_TD, merged_TD in zip(*stored, strict=True):
        l1_T = (own_TD - merged_TD).abs().mean(-1, dtype=torch.float64)
        cosine_T = cosine_similarity(own_TD, merged_TD, dim=-1)
        sums += torch.stack([l1_T.sum(), cosine_T.sum(dtype=torch.float64)]).cpu()
        count += len(own_TD)
    l1, cosine = (sums / count).tolist()
    return l1, 1 - cosine

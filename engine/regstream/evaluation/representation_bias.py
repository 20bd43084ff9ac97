"""Representation bias: the distance of a merged model's hidden states from each candidate's, on its held-out rows.

Source: Yang et al., "Representation Surgery for Multi-Task Model Merging" (ICML 2024).

Shape suffixes: T tokens, D features.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from regstream.data.loading import CalibrationSet
from regstream.errors import ManifestError
from regstream.evaluation.evaluated_model import evaluated_models
from regstream.evaluation.evaluation_plan import EvaluationPlan
from regstream.evaluation.layerwise_pass import LayerwisePass, OpenedModel, StoredStates
from regstream.evaluation.metrics import held_out_rows
from regstream.evaluation.scheduler import run_evaluation
from regstream.evaluation.sums import Place, Sums
from regstream.events import Listener, ignore_event
from regstream.models.architecture.architecture import Architecture
from regstream.output.record_schema import BiasRecord
from regstream.planning.plan import Plan
from regstream.ranks.group import ending_together


@dataclass(frozen=True, kw_only=True)
class RepresentationBias:
    """A model's mean distance over the tokens of a candidate's rows. Depth d is the input of block d.

    Of an encoder and a decoder, what enters the decoder's first block is one depth further than what leaves the
    encoder's last, and so on: of six blocks and six, depth 6 is of the encoder, and 7 of the decoder.
    """

    model: str
    dataset: str
    depth: int
    after: str  # what these hidden states leave: stem, block 0, …
    l1: float  # mean absolute difference of a feature
    cosine: float  # 1 - cosine similarity

    def record(self) -> BiasRecord:
        """What the record of a result says of it."""
        return BiasRecord(**asdict(self))


@ending_together()
def representation_bias(
    plan: Plan, *, also: Mapping[str, Path] | None = None, only: Collection[str] = (), listener: Listener = ignore_event
) -> list[RepresentationBias]:
    """The bias of the mean, the result and `also` others at every depth; `only` selects some of these models.

    All models advance block by block together; one block of one model is in memory at a time. Resumes as an evaluation,
    and is shared by ranks as one.

    Raises:
        ManifestError: no candidate has a [candidates.evaluation] table, or `only` names an unknown model.
        InputError: rows or checkpoints cannot be used, or the merge has no result yet.
        BudgetError: memory or disk do not suffice.
    """
    datasets, architecture = _datasets(plan, listener), plan.base.architecture
    only = only or ("mean", plan.method.name, *(also or {}))
    compared = [model.name for model in evaluated_models(plan, also or {}, only)]
    own, merged = list[OpenedModel](), list[OpenedModel]()
    for number, model in enumerate(evaluated_models(plan, also or {})):
        is_own, is_merged = model.is_candidate and model.name in datasets, model.name in compared
        if is_own or is_merged:  # a candidate that is compared with the others is read once
            rows = datasets if is_merged else {model.name: datasets[model.name]}
            opened = OpenedModel(number=number, name=model.name, weights=model.open(), datasets=rows)
            own += [opened] * is_own
            merged += [opened] * is_merged
    models = {model.number: model for model in (*own, *merged)}
    layers = LayerwisePass(
        model=plan.model,
        models=tuple(models[number] for number in sorted(models)),
        dtype=plan.compute_dtype,
        observer=_Distances([model.number for model in own], [model.number for model in merged]),
    )
    found = run_evaluation(EvaluationPlan.of(plan, [layers]), listener)
    depths = range(len(plan.model.blocks) + len(architecture.stacks))
    return [
        _bias(found[Place(model.number, candidate.name, depth)], model, candidate, depth, architecture)
        for depth in depths
        for model in merged
        for candidate in own
    ]


def _bias(
    sums: Sums, model: OpenedModel, candidate: OpenedModel, depth: int, architecture: Architecture
) -> RepresentationBias:
    l1, cosine = sums.means
    return RepresentationBias(
        model=model.name,
        dataset=candidate.name,
        depth=depth,
        after=architecture.left_at(depth),
        l1=l1,
        cosine=1 - cosine,
    )


def _datasets(plan: Plan, listener: Listener) -> Mapping[str, CalibrationSet]:
    """The held-out rows of each candidate."""
    if not (datasets := held_out_rows(plan, listener)):
        raise ManifestError(
            "bias: no candidate has a [candidates.evaluation] table; write one, with the path of its held-out rows"
        )
    return datasets


@dataclass(frozen=True)
class _Distances:
    """Compares the candidates with the merged models at a depth; both are numbers of models."""

    own: Sequence[int]
    merged: Sequence[int]

    @property
    def digest(self) -> str:
        """Which models are compared with which."""
        return f"{self.own} with {self.merged}"

    def at_depth(self, states: StoredStates, models: Sequence[OpenedModel], depth: int) -> Iterator[tuple[Place, Sums]]:
        """The distances of each merged model from each candidate that has rows among these."""
        candidates = [model for model in models if model.number in self.own and model.name in model.datasets]
        for model in (model for model in models if model.number in self.merged):
            for name, candidate in ((candidate.name, candidate) for candidate in candidates):
                sums = _distances(states.read(candidate, name, depth), states.read(model, name, depth))
                yield Place(model.number, name, depth), sums


def _distances(own: Iterator[Tensor], merged: Iterator[Tensor]) -> Sums:
    """Of each token the mean absolute difference of features, and the cosine; summed in float64."""
    sums, count = torch.zeros(2, dtype=torch.float64), 0
    for own_TD, merged_TD in zip(map(torch.Tensor.float, own), map(torch.Tensor.float, merged), strict=True):
        l1_T = (own_TD - merged_TD).abs().mean(-1, dtype=torch.float64)
        cosine_T = cosine_similarity(own_TD, merged_TD, dim=-1)
        sums += torch.stack([l1_T.sum(), cosine_T.sum(dtype=torch.float64)]).cpu()
        count += len(own_TD)
    return Sums(tuple(sums.tolist()), count)

"""The models to evaluate: base, candidates, their mean, the result and others that the user names."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from regstream.checkpoint.checkpoint import open_checkpoint
from regstream.errors import InputError, ManifestError
from regstream.evaluation.layerwise_pass import Weights
from regstream.evaluation.mean_weights import MeanWeights
from regstream.events import Listener, Warned, ignore_event
from regstream.models.config.config_file import CONFIG
from regstream.planning.opened_merge import PlannedCandidate
from regstream.planning.plan import Plan
from regstream.validation.compatibility import check_candidate
from regstream.validation.unexpected_tensors import classify_unexpected, refuse_unusable


@dataclass(frozen=True, kw_only=True)
class EvaluatedModel:
    """A model's name and a function that opens its weights."""

    name: str
    open: Callable[[], Weights]
    is_candidate: bool = False


def evaluated_models(
    plan: Plan, also: Mapping[str, Path], only: Collection[str] = (), listener: Listener = ignore_event
) -> list[EvaluatedModel]:
    """List base, if there is one, candidates, their mean, the result and `also` others (folders by name).

    `only` selects some of them. Opening one of the others warns the listener of its unexpected tensors.

    Raises:
        ManifestError: `only` names a model that is not listed.
    """
    folders = {plan.method.name: plan.output, **also}
    models = [
        *([] if plan.manifest.merge.base is None else [EvaluatedModel(name="base", open=lambda: plan.base)]),
        *(_candidate(candidate) for candidate in plan.candidates),
        EvaluatedModel(name="mean", open=lambda: MeanWeights([candidate.checkpoint for candidate in plan.candidates])),
        *(_result(plan, name, folder, listener) for name, folder in folders.items()),
    ]
    names = [model.name for model in models]
    for name in only:
        if name not in names:
            raise ManifestError(f'evaluate: there is no model "{name}"; there are {", ".join(names)}')
    return [model for model in models if not only or model.name in only]


def _candidate(candidate: PlannedCandidate) -> EvaluatedModel:
    return EvaluatedModel(name=candidate.name, open=lambda: candidate.checkpoint, is_candidate=True)


def _result(plan: Plan, name: str, folder: Path, listener: Listener) -> EvaluatedModel:
    def open_result() -> Weights:
        if plan.rank_id.rank and not (folder / CONFIG).exists():
            advice = "it must be on a file system that all ranks see"
            raise InputError(f"{folder}: rank {plan.rank_id.rank} finds no model here; {advice}")
        if folder == plan.output and not (folder / CONFIG).exists():
            raise InputError(f"{folder}: there is no result yet; `regstream run` makes it")
        checkpoint = open_checkpoint(name, folder, architecture=plan.base.architecture)
        refuse_unusable(checkpoint, plan.model)
        unexpected = classify_unexpected(checkpoint, plan.model)
        for line in unexpected.warnings(of_base=False) if folder != plan.output else ():
            listener(Warned(message=line))
        check_candidate(checkpoint, plan.base, plan.model.shapes, plan.manifest.merge.others)
        return checkpoint

    return EvaluatedModel(name=name, open=open_result)

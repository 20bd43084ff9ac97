"""A tuning with its settings, rounds and costs: ready to run, or to be refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Self

from regstream.evaluation.accuracy import Accuracy
from regstream.evaluation.evaluation_plan import EvaluationPlan
from regstream.evaluation.layerwise_pass import LayerwisePass, OpenedModel
from regstream.evaluation.loss import HeldOutLoss, TargetLoss
from regstream.evaluation.metrics import make_metric
from regstream.events import ignore_event
from regstream.manifest.keys import format_settings
from regstream.manifest.schema import Manifest
from regstream.methods import AUTO
from regstream.methods.search_space import Settings
from regstream.planning.plan import Plan
from regstream.planning.planning import replan
from regstream.planning.run_identity import identify
from regstream.storage.identity_differences import Identity
from regstream.storage.run_folder import TUNING
from regstream.storage.tuning_folder import RESULT
from regstream.tuning.disk import check_tuning_disk
from regstream.tuning.held_out_split import HeldOutSplit, split_rows
from regstream.tuning.schedule import Round, schedule
from regstream.tuning.settings import different_settings, fixed_options, own_settings, settings_to_try
from regstream.tuning.shared_rows import count_shared_rows

#: All of the rows that calibrate.
_ALL = Fraction(1)


@dataclass(frozen=True, kw_only=True)
class TuningPlan:
    """`merge` is the plan of the manifest itself, `split` names the rows.

    `num_shared` is how many held-out rows of a candidate also calibrate, where any do.
    """

    merge: Plan
    settings: tuple[Settings, ...]
    split: HeldOutSplit
    rounds: tuple[Round, ...]
    metric: HeldOutLoss | TargetLoss | Accuracy
    num_shared: Mapping[str, int]

    @classmethod
    def of(cls, merge: Plan) -> Self:
        """Plan the tuning of a merge; reads the held-out rows, which the tuning itself warns of.

        Raises:
            ManifestError: the method has no settings to try, or a candidate no rows that could be held out.
            InputError: rows cannot be used, are too few, or are those that calibrate.
        """
        settings = different_settings(merge, settings_to_try(merge.manifest))
        split = split_rows(merge)
        metric = make_metric(replace(merge, manifest=split.manifest), ignore_event)
        rounds = schedule(len(settings), split, _num_rows(metric))
        num_shared = count_shared_rows(merge, split, metric.datasets)
        return cls(merge=merge, settings=settings, split=split, rounds=rounds, metric=metric, num_shared=num_shared)

    @cached_property
    def identity(self) -> Identity:
        """Everything that decides the scores; an interrupted tuning resumes only if none of it has changed."""
        identity = {key: value for key, value in identify(self.merge, full=False).items() if key != "diagnostics"}
        tried = {key for settings in self.settings for key in settings}
        return {
            **identity,
            "manifest": {key: value for key, value in identity["manifest"].items() if key not in tried},
            "settings": [dict(settings) for settings in self.settings],
            "rounds": [
                {"settings": planned.num_settings, "rows": [*planned.num_rows], "scored": [*planned.num_scored]}
                for planned in self.rounds
            ],
            "held out": {name: rows.digest for name, rows in self.metric.datasets.items()},
            "metric": self.metric.digest,
        }

    @property
    def folder(self) -> Path:
        """The folder of the tuning's state and of the results that it compares."""
        return self.merge.workdir / TUNING

    @property
    def writes_method(self) -> bool:
        """Whether the method goes into the manifest with its settings: the manifest's is "auto"."""
        return self.merge.manifest.merge.method == AUTO

    @property
    def own_settings(self) -> Settings | None:
        """The settings of the manifest, where the method does not name them itself."""
        return own_settings(self.merge.manifest)

    @property
    def fixed_options(self) -> Settings:
        """The options of the manifest that no setting changes."""
        return fixed_options(self.merge.manifest)

    @property
    def own_scales(self) -> tuple[str, ...]:
        """The candidates with a scale of their own in place of one that is tuned."""
        if not (self.merge.method.reads_scales and any("scale" in settings for settings in self.settings)):
            return ()
        return tuple(candidate.name for candidate in self.merge.manifest.candidates if candidate.scale is not None)

    @property
    def num_held_out(self) -> dict[str, int]:
        """How many rows each candidate is scored on in the last round."""
        return self.rows_by_name(_num_rows(self.metric))

    def rows_by_name(self, num_rows: Sequence[int]) -> dict[str, int]:
        """Numbers of rows by the names of the candidates."""
        return dict(zip(self.merge.manifest.candidate_names, num_rows, strict=True))

    def trials(self, number: int, settings: Sequence[Settings]) -> dict[str, Plan]:
        """The merges of some settings in a round, by label; the first round has number 0."""
        planned = self._with_rows(self.rounds[number].share)
        folders = {i: self.folder / f"{RESULT}{number}-{i}" for i, one in enumerate(self.settings) if one in settings}
        return {
            format_settings(self.settings[index]): replan(
                planned, _in_folder(planned.manifest.with_settings(self.settings[index]), folder)
            )
            for index, folder in folders.items()
        }

    def evaluated(self, num_scored: Sequence[int]) -> Plan:
        """What evaluates results: the merge with so many held-out rows, its state in the tuning's folder."""
        return replace(self.merge, manifest=_in_folder(self.split.scored_on(num_scored), self.folder))

    def validate(self) -> None:
        """Refuse a tuning that does not fit.

        Raises:
            BudgetError: a merge or an evaluation needs more memory than its budget, or the results more disk.
        """
        for number, planned in enumerate(self.rounds):
            trials = list(self.trials(number, self.settings[: planned.num_settings]).values())
            for trial in trials:
                trial.check_memory()
            evaluation = self._evaluation(planned.num_settings, planned.num_scored)
            check_tuning_disk(self.folder, trials, evaluation.disk_bytes)
            evaluation.validate()

    @cached_property
    def round_seconds(self) -> tuple[float, ...]:
        """The estimated time of each round, without downloads."""
        return tuple(self._seconds(planned.share, planned.num_settings, planned.num_scored) for planned in self.rounds)

    @cached_property
    def sweep_seconds(self) -> float | None:
        """The estimated time of merging with every setting and all rows, and evaluating the results.

        None where a round does just that.
        """
        num_rows, num_scored = self.split.num_rows(_ALL), _num_rows(self.metric)
        sweep = (len(self.settings), num_rows, num_scored)
        if sweep in [(planned.num_settings, planned.num_rows, planned.num_scored) for planned in self.rounds]:
            return None
        return self._seconds(_ALL, len(self.settings), num_scored)

    def _seconds(self, share: Fraction, num_settings: int, num_scored: Sequence[int]) -> float:
        planned = self._with_rows(share)
        merges = (replan(planned, planned.manifest.with_settings(settings)) for settings in self.settings)
        merge_seconds = fmean(sum(merge.step_seconds) for merge in merges)
        return num_settings * merge_seconds + sum(self._evaluation(num_settings, num_scored).step_seconds)

    def _with_rows(self, share: Fraction) -> Plan:
        """The merge with a share of its rows."""
        if share not in self._plans:
            self._plans[share] = replan(self.merge, self.split.calibrating_with(share))
        return self._plans[share]

    @cached_property
    def _plans(self) -> dict[Fraction, Plan]:
        return {}

    def _evaluation(self, num_models: int, num_scored: Sequence[int]) -> EvaluationPlan:
        """The evaluation of so many results, for its costs: the base, which has their shapes, stands in for each."""
        plan = self.evaluated(num_scored)
        metric = make_metric(plan, ignore_event)
        datasets = metric.datasets
        models = (OpenedModel(number=n, name=str(n), weights=plan.base, datasets=datasets) for n in range(num_models))
        layers = LayerwisePass(model=plan.model, models=tuple(models), dtype=plan.compute_dtype, metric=metric)
        return EvaluationPlan.of(plan, [layers])


def _num_rows(metric: HeldOutLoss | TargetLoss | Accuracy) -> tuple[int, ...]:
    """How many held-out rows each candidate has."""
    return tuple(sum(len(batch.lengths) for batch in rows.batches) for rows in metric.datasets.values())


def _in_folder(manifest: Manifest, folder: Path) -> Manifest:
    """The manifest with its result, and all state of its merge, in a folder."""
    merge = manifest.merge.model_copy(update={"output": folder})
    resources = manifest.resources.model_copy(update={"workdir": None})
    return manifest.model_copy(update={"merge": merge, "resources": resources})

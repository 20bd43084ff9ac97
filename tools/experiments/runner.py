"""Runs those points of a sweep that are not finished yet: the engine merges and judges, results are kept."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from experiments import identity, manifests
from experiments.derived import Derived
from experiments.identity import Manifest
from experiments.results import Result, Results
from experiments.sweeps import Context, Point, Sweep
from regstream.errors import SolveError
from regstream.evaluate.evaluation import evaluate
from regstream.manifest.read_manifest import read_manifest
from regstream.plan.plan import Plan
from regstream.plan.planning import make_plan
from regstream.runtime.scheduler import run


class Runner:
    """Works below a folder: results, merged models, derived sets of images."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._results = Results(folder / "results.jsonl")
        self._context = Context(
            derived=Derived(folder / "derived"), num_blocks=lambda manifest: len(self.plain_plan(manifest).model.blocks)
        )

    def finished(self, sweep: Sweep, manifest: Manifest) -> list[tuple[Point, Result]]:
        """Every point of a sweep with its result, in order, after running those that have none."""
        points = list(sweep.points(manifest, self._context))
        found = []
        for number, point in enumerate(points, start=1):
            result = self._results.get(self._identity(point))
            if result is None:
                result = self._judged(point)
                self._results.add(result)
                print(f"{number} of {len(points)}: {_told(point, result)}", flush=True)
            found.append((point, result))
        self.drop_models()
        return found

    def merged(self, manifest: Manifest) -> Path:
        """The folder of a merge's result; candidates that are merges themselves come first."""
        output = self._folder / "models" / identity.of_merge(manifest)
        resolved = manifests.with_merge(manifest, output=str(output))
        for candidate in resolved["candidates"]:
            if isinstance(candidate.get("model"), dict):
                candidate["model"] = str(self.merged(candidate["model"]))
        if not (output / "regstream.json").exists():
            run(self._plan(resolved, output.name))
        return output

    def drop_models(self) -> None:
        """Remove all merged models. A run that is killed keeps them: its merge goes on where it stood."""
        if (models := self._folder / "models").exists():
            shutil.rmtree(models)

    def plain_plan(self, manifest: Manifest) -> Plan:
        """A plan of the plain mean, which opens no calibration set: for what asks about held-out rows and shapes."""
        plain = manifests.with_merge(manifest, method="average", output=str(self._folder / "judged"))
        plain.pop("rules", None)
        return self._plan(plain, "judged")

    def _identity(self, point: Point) -> str:
        return identity.of_judgement(point.judge, self._model_identity(point))

    def _model_identity(self, point: Point) -> str:
        if point.model is None:
            return identity.of_merge(point.merge)
        return identity.content(_folder_of(point.judge, point.model))

    def _judged(self, point: Point) -> Result:
        started = time.monotonic()
        found, failure = None, ""
        try:
            folder = self.merged(point.merge) if point.model is None else _folder_of(point.judge, point.model)
            found = evaluate(self.plain_plan(point.judge), also={"judged": folder}, only=["judged"])
        except SolveError as error:
            failure = str(error)
        return Result(
            identity=self._identity(point),
            metric=found.metric if found else "",
            higher_is_better=found is None or found.higher_is_better,
            scores=found.rows[0].scores if found else {},
            seconds=round(time.monotonic() - started, 2),
            failure=failure,
        )

    def _plan(self, manifest: Manifest, name: str) -> Plan:
        path = self._folder / "manifests" / f"{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        manifests.write(path, manifest)
        return make_plan(read_manifest(path))


def _folder_of(manifest: Manifest, model: str) -> Path:
    if model == "base":
        return Path(manifest["merge"]["base"])
    return next(Path(c["model"]) for c in manifest["candidates"] if c["name"] == model)


def _told(point: Point, result: Result) -> str:
    average = sum(result.scores.values()) / max(len(result.scores), 1)
    return f"{point.row}, {point.setting}: {result.failure or f'{average:.4f}'} ({result.seconds:.0f} s)"

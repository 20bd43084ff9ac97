"""Runs those points of a sweep that are not finished yet: the engine merges and judges, results are kept."""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path

from experiments import identity, manifests
from experiments.derived import Derived
from experiments.identity import Manifest
from experiments.results import Result, Results
from experiments.sweeps import Context, Point, Sweep
from regstream.errors import SolveError
from regstream.evaluation.evaluation import evaluate
from regstream.manifest.read_manifest import read_manifest
from regstream.planning.plan import Plan
from regstream.planning.planning import make_plan
from regstream.runtime.scheduler import run

_JUDGED_TOGETHER = 6  # models in one evaluation; of merged ones, so many are on disk at a time


@dataclass(kw_only=True)
class _Made:
    """The folder of what a point judges, unless that is named in its manifest or could not be made."""

    folder: Path | None = None
    seconds: float = 0.0
    failure: str = ""


class Runner:
    """Works below a folder: results, merged models, derived sets of images."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._results = Results(folder / "results.jsonl")
        self._context = Context(
            derived=Derived(folder / "derived"), num_blocks=lambda manifest: len(self.plain_plan(manifest).model.blocks)
        )

    def finished(self, sweep: Sweep, manifest: Manifest, *, again: Collection[str] = ()) -> list[tuple[Point, Result]]:
        """Every point of a sweep with its result, in order, after running those that have none and the rows `again`."""
        points = {self._identity(point): point for point in self._points(sweep, manifest)}
        left = {name: point for name, point in points.items() if point.row in again or not self._results.get(name)}
        while left:
            together = _judged_together(left)
            for point, result in zip(together.values(), self._judged(together), strict=True):
                self._results.add(result)
                del left[result.identity]
                print(f"{len(points) - len(left)} of {len(points)}: {_told(point, result)}", flush=True)
            self._drop_models_but(left.values())
        self.drop_models()
        return self.known(sweep, manifest)

    def known(self, sweep: Sweep, manifest: Manifest) -> list[tuple[Point, Result]]:
        """The points of a sweep that have a result, in order."""
        found = ((point, self._results.get(self._identity(point))) for point in self._points(sweep, manifest))
        return [(point, result) for point, result in found if result is not None]

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

    def _points(self, sweep: Sweep, manifest: Manifest) -> Iterator[Point]:
        return sweep.points(manifest, self._context)

    def _drop_models_but(self, points: Iterable[Point]) -> None:
        """Remove the merged models that no point needs, so that not all of a sweep's are on disk at once."""
        needed = {name for point in points for name in _merges(point.merge)}
        for folder in (self._folder / "models").glob("*"):
            if folder.name not in needed:
                shutil.rmtree(folder)

    def _identity(self, point: Point) -> str:
        return identity.of_judgement(point.judge, self._model_identity(point))

    def _model_identity(self, point: Point) -> str:
        if point.model is None:
            return identity.of_merge(point.merge)
        return _content_of(point.judge, point.model)

    def _judged(self, points: Mapping[str, Point]) -> list[Result]:
        """Results of points with one judge: merged one by one, judged in one pass over the held-out rows."""
        made = {name: self._make(point) for name, point in points.items()}
        models = {name: point.model or name for name, point in points.items() if not made[name].failure}
        found = None
        if models:
            also = {name: model.folder for name, model in made.items() if model.folder is not None}
            judge = next(iter(points.values())).judge
            found = evaluate(self.plain_plan(judge), also=also, only=list(models.values()), cross=True)
        scores = {row.model: row.scores for row in found.rows} if found else {}
        return [
            Result(
                identity=name,
                metric=found.metric if found and name in models else "",
                higher_is_better=found is None or found.higher_is_better,
                scores=scores[models[name]] if name in models else {},
                seconds=round(made[name].seconds, 2),
                failure=made[name].failure,
            )
            for name in points
        ]

    def _make(self, point: Point) -> _Made:
        """Merge what a point merges."""
        if point.model is not None:
            return _Made()
        started = time.monotonic()
        try:
            return _Made(folder=self.merged(point.merge), seconds=time.monotonic() - started)
        except SolveError as error:
            return _Made(seconds=time.monotonic() - started, failure=str(error))

    def _plan(self, manifest: Manifest, name: str) -> Plan:
        path = self._folder / "manifests" / f"{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        manifests.write(path, manifest)
        return make_plan(read_manifest(path))


def _judged_together(points: Mapping[str, Point]) -> dict[str, Point]:
    """The first points, as long as they have the same judge."""
    judge = next(iter(points.values())).judge
    alike = takewhile(lambda item: item[1].judge == judge, points.items())
    return dict(islice(alike, _JUDGED_TOGETHER))


def _content_of(manifest: Manifest, model: str) -> str:
    """The digest of the base or a candidate."""
    base = Path(manifest["merge"]["base"])
    if model == "base":
        return identity.content(base)
    candidate = next(candidate for candidate in manifest["candidates"] if candidate["name"] == model)
    tuned = identity.content(Path(candidate.get("model", base)))
    return identity.digest([tuned, identity.content(Path(candidate["adapter"]))]) if "adapter" in candidate else tuned


def _merges(manifest: Manifest) -> Iterator[str]:
    """The identities of a merge and of those that its candidates are."""
    yield identity.of_merge(manifest)
    for candidate in manifest["candidates"]:
        if isinstance(candidate.get("model"), dict):
            yield from _merges(candidate["model"])


def _told(point: Point, result: Result) -> str:
    average = sum(result.scores.values()) / max(len(result.scores), 1)
    return f"{point.row}, {point.setting}: {result.failure or f'{average:.4f}'} ({result.seconds:.0f} s)"

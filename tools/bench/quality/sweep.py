"""What is run on a family: its base and candidates as they are, and every setting with every seed."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from experiments.identity import Manifest
from experiments.manifests import names, with_merge
from experiments.sweeps import Context, Point, Sweep
from regstream.methods import METHODS

Settings = Mapping[str, Mapping[str, Any]]


def sweep_of(settings: Settings, seeds: Collection[int]) -> Sweep:
    """A sweep whose points are the models, then the settings: rows are titles, settings of a row are seeds."""

    def points(manifest: Manifest, context: Context) -> Iterator[Point]:
        del context
        yield Point(row="base", setting="", merge=manifest, judge=manifest, model="base")
        for name in names(manifest):
            yield Point(row=name, setting="", merge=manifest, judge=manifest, model=name, over=(name,))
        for title, merge in settings.items():
            for seed in _seeds_of(str(merge["method"]), seeds):
                merged = with_merge(manifest, **merge, seed=seed)
                yield Point(row=title, setting=str(seed), merge=merged, judge=manifest)

    return Sweep(axis="seed", points=points)


def _seeds_of(method: str, seeds: Collection[int]) -> tuple[int, ...]:
    found = METHODS[method]
    return tuple(seeds) if found(found.Options()).needs_calibration() else tuple(seeds)[:1]

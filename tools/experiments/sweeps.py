"""Sweeps: each gives the points that a manifest's variants make, and says how they are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experiments.corruptions import CORRUPTIONS
from experiments.derived import Derived
from experiments.identity import Manifest
from experiments.manifests import (
    names,
    of_candidates,
    rows_of,
    with_calibration,
    with_evaluation,
    with_merge,
    with_rules,
)

TITLES = {
    "average": "mean",
    "task_arithmetic": "task arithmetic",
    "regmean": "RegMean",
    "regmean++": "RegMean++",
}
REGRESSING = ("regmean", "regmean++")
ALPHAS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
ROWS = (1, 4, 16, 64, 256, 1024)
REGIONS = ("early", "middle", "late", "early+middle", "early+late", "middle+late")
AT_A_TIME = 4  # tasks that join a merge in one go


@dataclass(frozen=True, kw_only=True)
class Point:
    """One cell of a table: what is merged, and on what it is judged.

    `model` names the base or a candidate that is judged itself, merging nothing; `over` the datasets that its average
    is of, all where it is empty.
    """

    row: str
    setting: str
    merge: Manifest
    judge: Manifest
    model: str | None = None
    over: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Context:
    """What sweeps may ask for besides the manifest."""

    derived: Derived
    num_blocks: Callable[[Manifest], int]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """How points come from a manifest, and whether their settings are shown along an axis or as bars."""

    axis: str
    points: Callable[[Manifest, Context], Iterator[Point]]
    kind: Literal["lines", "bars"] = "lines"


def methods(manifest: Manifest, context: Context) -> Iterator[Point]:
    """The base, every candidate on all data, and every method."""
    del context
    for name in ("base", *names(manifest)):
        yield Point(row=name, setting="all", merge=manifest, judge=manifest, model=name)
    for method in TITLES:
        yield _merged(manifest, method, "all")


def alpha(manifest: Manifest, context: Context) -> Iterator[Point]:
    """The off-diagonal scale of the Gram matrices."""
    del context
    for value in ALPHAS:
        for method in REGRESSING:
            yield _merged(with_merge(manifest, alpha=value), method, f"{value:g}")


def rows(manifest: Manifest, context: Context) -> Iterator[Point]:
    """How many calibration rows a task has."""
    del context
    for count in ROWS:
        for method in REGRESSING:
            yield _merged(with_calibration(manifest, rows=count), method, str(count))


def regions(manifest: Manifest, context: Context) -> Iterator[Point]:
    """Which blocks are regressed; all others are the mean."""
    del context
    for region in ("none", *REGIONS, "all"):
        for method in REGRESSING:
            yield _merged(_only_region(manifest, region), method, region)


def blocks(manifest: Manifest, context: Context) -> Iterator[Point]:
    """One block is regressed, all others are the mean."""
    last = context.num_blocks(manifest) - 1
    for block in range(last + 1):
        others = [f"{a}-{b}" for a, b in ((0, block - 1), (block + 1, last)) if a <= b]
        changed = with_rules(manifest, {"parameters": "*", "blocks": ",".join(others), "use": "average"})
        for method in REGRESSING:
            yield _merged(changed, method, str(block))


def components(manifest: Manifest, context: Context) -> Iterator[Point]:
    """Attention or MLP left as in the base."""
    del context
    left_as_base = {"both": (), "attention": ("*.mlp.*",), "MLP": ("*.self_attn.*",)}
    for setting, globs in left_as_base.items():
        changed = with_rules(manifest, *({"parameters": glob, "use": "base"} for glob in globs))
        for method in TITLES if setting != "both" else REGRESSING:
            if method != "task_arithmetic":
                yield _merged(changed, method, setting)


def calibration(manifest: Manifest, context: Context) -> Iterator[Point]:
    """Whose rows calibrate: each candidate's own, the next one's, or one task's for all."""
    del context
    own = rows_of(manifest, "calibration")
    sets = {"own": own, "the next one's": [*own[1:], own[0]]}
    sets |= {f"{name} for all": [path] * len(own) for name, path in zip(names(manifest), own, strict=True)}
    for setting, paths in sets.items():
        for method in REGRESSING:
            yield _merged(with_calibration(manifest, paths), method, setting)


def classes(manifest: Manifest, context: Context) -> Iterator[Point]:
    """From how many classes of its task a candidate's calibration rows come."""
    own = rows_of(manifest, "calibration")
    for count in (1, 2, 4, 8):
        some = [context.derived.of_classes(path, count) for path in own]
        for method in REGRESSING:
            yield _merged(with_calibration(manifest, some), method, str(count))
    for method in REGRESSING:
        yield _merged(manifest, method, "all")


def candidates(manifest: Manifest, context: Context) -> Iterator[Point]:
    """How many candidates are merged, and judged on their own tasks."""
    del context
    for count in range(2, len(names(manifest)) + 1):
        if count <= 8 or count % 4 == 0:
            some = of_candidates(manifest, names(manifest)[:count])
            for method in TITLES:
                yield _merged(some, method, str(count))


def sequential(manifest: Manifest, context: Context) -> Iterator[Point]:
    """Some tasks at a time, the merge of all before being one candidate, beside all at once."""
    every = names(manifest)
    for count in range(AT_A_TIME, len(every) + 1, AT_A_TIME):
        judge = of_candidates(manifest, every[:count])
        for method in ("average", *REGRESSING):
            title = TITLES[method]
            at_once = with_merge(judge, method=method)
            yield Point(row=f"{title}, all at once", setting=str(count), merge=at_once, judge=judge)
            for weighted in (True, False):
                merge = _in_turn(manifest, method, count, context.derived, weighted=weighted)
                row = f"{title}, {'weighted by tasks' if weighted else 'as one candidate'}"
                if weighted and method == "average":
                    continue  # the plain mean has no weights
                yield Point(row=row, setting=str(count), merge=merge, judge=judge)


def left_out(manifest: Manifest, context: Context) -> Iterator[Point]:
    """Two tasks at a time are left out, and the merge of the others is judged on both kinds."""
    del context
    every = names(manifest)
    for start in range(0, len(every) - 1, 2):
        unseen = tuple(every[start : start + 2])
        seen = tuple(name for name in every if name not in unseen)
        merge = of_candidates(manifest, seen)
        yield Point(
            row="base, unseen", setting=" ".join(unseen), merge=manifest, judge=manifest, model="base", over=unseen
        )
        for method, title in TITLES.items():
            merged = with_merge(merge, method=method)
            for kind, over in (("seen", seen), ("unseen", unseen)):
                row, setting = f"{title}, {kind}", " ".join(unseen)
                yield Point(row=row, setting=setting, merge=merged, judge=manifest, over=over)


def corruptions(manifest: Manifest, context: Context) -> Iterator[Point]:
    """Held-out images that have gone bad; the merges are the same."""
    clean = rows_of(manifest, "evaluation")
    judges = {"clean": manifest}
    for name in CORRUPTIONS:
        judges[name] = with_evaluation(manifest, [context.derived.corrupted(path, name) for path in clean])
    for method, title in TITLES.items():
        for setting, judge in judges.items():
            yield Point(row=title, setting=setting, merge=with_merge(manifest, method=method), judge=judge)


SWEEPS = {
    "methods": Sweep(axis="model", points=methods, kind="bars"),
    "alpha": Sweep(axis="α", points=alpha),
    "rows": Sweep(axis="calibration rows a task", points=rows),
    "regions": Sweep(axis="regressed blocks", points=regions, kind="bars"),
    "blocks": Sweep(axis="the one regressed block", points=blocks),
    "components": Sweep(axis="merged; the rest as in the base", points=components, kind="bars"),
    "calibration": Sweep(axis="calibrated on", points=calibration, kind="bars"),
    "classes": Sweep(axis="classes of a task in its calibration set", points=classes),
    "candidates": Sweep(axis="candidates", points=candidates),
    "sequential": Sweep(axis="tasks so far", points=sequential),
    "left-out": Sweep(axis="tasks left out", points=left_out, kind="bars"),
    "corruptions": Sweep(axis="held-out images", points=corruptions, kind="bars"),
}


def _merged(manifest: Manifest, method: str, setting: str) -> Point:
    merge = with_merge(manifest, method=method)
    return Point(row=TITLES[method], setting=setting, merge=merge, judge=manifest)


def _only_region(manifest: Manifest, region: str) -> Manifest:
    """With every block outside a region averaged; "none" is no region and "all" every one."""
    inside = {"none": [], "all": ["early", "middle", "late"]}.get(region, region.split("+"))
    outside = [third for third in ("early", "middle", "late") if third not in inside]
    if not outside:
        return manifest
    return with_rules(manifest, {"parameters": "*", "blocks": "+".join(outside), "use": "average"})


def _in_turn(manifest: Manifest, method: str, count: int, derived: Derived, *, weighted: bool) -> Manifest:
    """The merge of the first `count` tasks, some at a time; what was merged before is a candidate, as a manifest."""
    every = names(manifest)
    last = with_merge(of_candidates(manifest, every[count - AT_A_TIME : count]), method=method)
    done = count - AT_A_TIME
    if done == 0:
        return last
    before = _in_turn(manifest, method, done, derived, weighted=weighted)
    calibrated = manifest["candidates"][0]["calibration"]
    own = [Path(candidate["calibration"]["path"]) for candidate in manifest["candidates"][:done]]
    mixed = str(derived.mixture(own, calibrated["rows"]))
    earlier = {"name": "merged", "model": before, "calibration": calibrated | {"path": mixed}}
    if weighted:
        earlier["weight"] = float(done)
    last["candidates"].insert(0, earlier)
    return last

"""Representation bias by depth: how far each method's hidden states lie from the candidates' own."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from statistics import fmean

from experiments import manifests
from experiments.identity import Manifest
from experiments.runner import Runner
from experiments.sweeps import TITLES
from experiments.table import new_axes, save
from regstream.evaluation.representation_bias import RepresentationBias, representation_bias

METHODS = ("average", "regmean", "regmean++")


def biases(runner: Runner, manifest: Manifest) -> list[RepresentationBias]:
    """Of every method, on every task, at every depth."""
    folders = {TITLES[method]: runner.merged(manifests.with_merge(manifest, method=method)) for method in METHODS}
    # Not the merge's own `mean`, whose final norm is a mean as well: what the methods make is compared.
    also = {f"merged-{title}": folder for title, folder in folders.items()}
    found = representation_bias(runner.plain_plan(manifest), also=also, only=list(also))
    runner.drop_models()
    return found


def write_csv(path: Path, found: Sequence[RepresentationBias]) -> None:
    """A line a model, task and depth."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([field.name for field in fields(RepresentationBias)])
        for bias in found:
            model = bias.model.removeprefix("merged-")
            writer.writerow([model, bias.dataset, bias.depth, bias.after, f"{bias.l1:.5f}", f"{bias.cosine:.5f}"])


def draw(path: Path, found: Sequence[RepresentationBias]) -> None:
    """Both distances, the mean over tasks, by depth."""
    figure, panels = new_axes(columns=2)
    depths = sorted({bias.depth for bias in found})
    for axes, distance, title in zip(panels, ("l1", "cosine"), ("mean |difference|", "1 − cosine"), strict=True):
        for model in dict.fromkeys(bias.model for bias in found):
            means = [fmean(getattr(b, distance) for b in found if (b.model, b.depth) == (model, d)) for d in depths]
            axes.plot(depths, means, "o-", label=model.removeprefix("merged-"))
        axes.set_xlabel("blocks passed")
        axes.set_ylabel(title)
        axes.grid(visible=True, axis="y", alpha=0.3)
    panels[0].legend(fontsize="small")
    save(figure, path)

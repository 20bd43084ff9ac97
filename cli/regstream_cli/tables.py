"""Tables and summary lines for people. All numbers come from the engine; only the layout is made here."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from statistics import fmean
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from regstream.units import format_bytes, format_flops, format_names, format_seconds

if TYPE_CHECKING:
    from regstream.evaluation.evaluation import Evaluation
    from regstream.evaluation.representation_bias import RepresentationBias
    from regstream.planning.plan import Plan
    from regstream.planning.step import Step
    from regstream_cli.run_status import RunStatus

#: Input groups of a pass that are listed, at most.
_MAX_GROUPS = 12
#: Tokens that are named, at most.
_MAX_TOKENS = 8
#: Settings that are shown by block, at most: each candidate may have two.
_MAX_SETTINGS = 8


def plan_table(plan: "Plan") -> Table:
    """A row per step; consecutive steps with equal numbers share a row."""
    memory = ["memory"] if plan.main_space == "host" else ["device memory", "host memory"]
    table = make_table("step", "tensors", "regressed", "reads", "writes", *memory)
    for cells, steps in groupby(plan.steps, key=lambda step: _plan_cells(plan, step)):
        table.add_row(span([step.name for step in steps]), *cells)
    return table


def settings_table(plan: "Plan") -> Table:
    """A row per step, a column per setting that is not the same everywhere; consecutive equal rows are one.

    A cell with several values has the number of parameters of each in parentheses.
    """
    from regstream.planning.varying_settings import settings_rows

    shown = plan.varying_settings[:_MAX_SETTINGS]
    table = make_table("setting", *(setting.title for setting in shown))
    rows = list(settings_rows(shown, plan.steps))
    for names, cells in rows:
        table.add_row(span(names), *cells)
    notes = []
    if any(setting.key == "share" for setting in shown):
        notes.append("a share is a weight over the mean of all weights")
    if any("(" in cell for _, cells in rows for cell in cells):
        notes.append("in parentheses, how many parameters have a value")
    if left_out := len(plan.varying_settings) - len(shown):
        notes.append(f"and {left_out} more settings, which --json has")
    table.caption, table.caption_justify = "; ".join(notes) or None, "left"
    return table


def _patterns(groups: Sequence[str]) -> list[str]:
    """The names of input groups; those of experts, of which there may be hundreds, by their pattern and number."""
    counts = Counter(re.sub(r"(?<=\.)\d+(?=\.|$)", "*", group) for group in groups)
    return [f"{pattern} ({count})" if count > 1 else pattern for pattern, count in counts.items()]


def plan_summary(plan: "Plan", *, fits: bool) -> Iterator[str]:
    """The memory terms of the step with the highest peak, the total transfers, and the needs beside the budgets."""
    peak = plan.peak_step
    for space, terms in plan.projections[peak.index].terms.items():
        parts = [("process", plan.idle_bytes(space)), *terms.items()]
        sums = " + ".join(f"{name} {format_bytes(size)}" for name, size in parts if size)
        on = "" if plan.main_space == "host" else f" on the {space}"
        yield f"peak step: {peak.name}, {format_bytes(plan.projected_bytes(peak, space))}{on} = {sums}"
    if len(passes := plan.passes(peak)) > 1:
        groups = "; ".join(format_names(_patterns(groups), _MAX_GROUPS) for groups in passes)
        how = "one after another, as its statistics need" if plan.method.solves_groups_in_turn() else "to fit"
        yield f"a block's input groups are processed in {len(passes)} passes, {how}: {groups}"
    if added := plan.tokenizer.added:
        yield f"adds {len(added):,} token{'s' * (len(added) > 1)} to the base's: {format_names(added, _MAX_TOKENS)}"
    yield from _work_lines(plan)
    needs = [
        f"{format_bytes(max(plan.projected_bytes(step, space) for step in plan.steps))} of {space} memory"
        f" (budget {format_bytes(budget)})"
        for space, budget in plan.budgets.items()
    ]
    yield from _download_lines(plan)
    disk = f"{format_bytes(plan.disk_bytes)} more disk space"
    yield f"needs {', '.join(needs)}, and {disk}: {'fits' if fits else 'does not fit'}"


def _work_lines(plan: "Plan") -> Iterator[str]:
    """What the merge computes, reads and writes, and how long that takes here."""
    rows = sum(len(batch.lengths) for batch in plan.batches)
    computes = f"{rows:,} rows, {plan.num_tokens:,} tokens, " if rows else ""
    computes += f"{format_flops(plan.flops)}, " if plan.flops else ""
    yield f"total: {computes}reads {format_bytes(plan.read_bytes)}, writes {format_bytes(plan.write_bytes)}"
    computed, stored = (str(dtype).removeprefix("torch.") for dtype in (plan.compute_dtype, plan.exact_dtype))
    if rows:
        reason = "" if computed == stored else f", where weights are stored in {stored}"
        rate = "" if plan.rates is None else f" at {format_flops(plan.rates.of_kind('merged forward'))}/s"
        yield f"computes in {computed}{rate}{reason}"
    if plan.step_seconds:
        evaluated = plan.evaluation_seconds
        evaluation = "" if evaluated is None else f"; evaluating it about {format_seconds(evaluated)}"
        yield f"takes about {format_seconds(sum(plan.step_seconds))}{' and the downloads' * plan.fetches}{evaluation}"


def _download_lines(plan: "Plan") -> Iterator[str]:
    downloads = plan.downloads
    if not downloads.download_bytes:
        return
    shards = f"at most {format_bytes(downloads.peak_shard_bytes)} of shards on disk at once"
    peak = f"{format_bytes(downloads.peak_disk_bytes)} with hidden states and result"
    yield f"downloads {format_bytes(downloads.download_bytes)} from the hub; {shards}, {peak}"
    if downloads.diagnostics_bytes:
        alone = format_bytes(downloads.diagnostics_bytes)
        yield f"downloads {alone} of that for diagnostics alone; [resources] diagnostics = false leaves them out"
    if downloads.repeated_bytes:
        repeated, ample = format_bytes(downloads.repeated_bytes), format_bytes(plan.ample_disk_bytes)
        reason = f"since shards are evicted for lack of disk space; with {ample} of disk nothing is downloaded twice"
        yield f"{repeated} of that again, {reason}"


def status_table(run_status: "RunStatus") -> Table:
    """A row per committed step."""
    on_device = any(step.device_projected_bytes for step in run_status.steps)
    table = make_table("step", "time", "peak memory", "projected", *["device peak", "projected"] * on_device)
    for step in run_status.steps:
        device = (step.device_peak_bytes, step.device_projected_bytes) * on_device
        memory = map(format_bytes, (step.peak_bytes, step.projected_bytes, *device))
        table.add_row(step.name, format_seconds(step.seconds), *memory)
    return table


def evaluation_table(evaluation: "Evaluation") -> Table:
    """A row per model, a column per dataset; the best score of each column is bold."""
    columns = [[row.scores.get(dataset) for row in evaluation.rows] for dataset in evaluation.datasets]
    columns.append([evaluation.average(row) for row in evaluation.rows])
    table = make_table(evaluation.metric, *evaluation.datasets, "average")
    best = max if evaluation.higher_is_better else min
    for row, *scores in zip(evaluation.rows, *(_score_cells(column, best) for column in columns), strict=True):
        table.add_row(row.model, *scores)
    return table


def bias_table(biases: "Sequence[RepresentationBias]") -> Table:
    """A row per depth, two columns per model; each value is the mean over all datasets."""
    models = list(dict.fromkeys(bias.model for bias in biases))
    table = make_table("after", *(f"{model} {distance}" for distance in ("L1", "1-cos") for model in models))
    for depth, after in sorted({(bias.depth, bias.after) for bias in biases}):
        at_depth = {model: [b for b in biases if (b.model, b.depth) == (model, depth)] for model in models}
        l1 = (fmean(bias.l1 for bias in at_depth[model]) for model in models)
        cosine = (fmean(bias.cosine for bias in at_depth[model]) for model in models)
        table.add_row(after, *(f"{value:.4f}" for value in (*l1, *cosine)))
    return table


def _score_cells(scores: Sequence[float | None], best_of: Callable[[Sequence[float]], float]) -> list[Text]:
    known = [score for score in scores if score is not None]
    best = best_of(known) if known else None
    return [Text("" if score is None else f"{score:.3f}", style="bold" if score == best else "") for score in scores]


def _plan_cells(plan: "Plan", step: "Step") -> tuple[str, ...]:
    projection = plan.projections[step.index]
    memory = [plan.projected_bytes(step, space) for space in sorted(projection.terms)]
    sizes = (projection.read_bytes, projection.write_bytes, *memory)
    return (str(len(step.parameters)), str(step.num_regressed), *map(format_bytes, sizes))


def span(names: Sequence[str]) -> str:
    """The name of a row of several that are numbered: `block 0 to 3, each`."""
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1].rpartition(' ')[2]}, each"


def make_table(name: str, *numbers: str) -> Table:
    """An empty table, of a left column and columns of numbers."""
    table = Table(name, box=SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table

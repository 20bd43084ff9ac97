"""What a report says in words: its first sentences, key numbers, and what to look at first."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from regstream.output.merge_summary import GroupResidual, LostChange, LostParameters, describe_lost, percent
from regstream.reporting.table import difference, number
from regstream.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from regstream.reporting.report import Report

_MAX_WORST = 3
#: Of a candidate's whole change.
_GRAVE_SHARE = 0.1


def lead(report: "Report") -> str:
    """What the result is, in one sentence or two."""
    record = report.record
    names = [*record.candidates]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    origin = "" if record.base is None else f", fine-tuned from {short_commit(record.base)},"
    text = f"A merge of {listed}{origin} with {record.method}."
    if record.prior_model is not None:
        text += f" Regressed weights are corrections of {short_commit(record.prior_model)}."
    if (residual := report.average_residual) is not None:
        merged, mean = residual
        text += (
            f" On the candidates' own calibration tokens its linears miss what the candidates' compute by"
            f" {percent(merged)}; those of the plain mean miss it by {percent(mean)}."
        )
    return text


def short_commit(model: str) -> str:
    """A model of the hub with the first digits of its commit."""
    return re.sub(r"@([0-9a-f]{12})[0-9a-f]{28}$", r"@\1", model)


def key_numbers(report: "Report") -> Iterator[tuple[str, str, str]]:
    """Name, value and a note of each number at the head of the page."""
    record, measured = report.record, report.measurements
    num_blocks = sum(step.name.startswith("block ") for step in record.steps)
    yield "candidates", str(len(record.candidates)), f"{num_blocks} {'blocks' if num_blocks > 1 else 'block'}"
    if report.scores is not None:
        average = report.scores.average
        if (gain := average.gain_over_mean) is not None:
            sign = 1 if report.scores.higher_is_better else -1
            note = f"{report.scores.metric}, {'better' if gain > 0 else 'worse' if gain < 0 else 'equal'}"
            yield "merged − mean", difference(sign * gain), note
    if report.summary.residuals_by_group:
        worst = report.summary.residuals_by_group[0]
        yield "largest residual", percent(worst.merged), f"{worst.candidate} in {worst.step}"
    kept = [total for total in report.summary.changes if total.kept is not None]
    if kept:
        least = min(kept, key=lambda total: total.kept or 0.0)
        yield "least kept change", percent(least.kept or 0.0), least.candidate
    if measured is not None:
        yield "peak memory", format_bytes(measured.peak_step.peak_bytes), measured.peak_step.name
        yield "time", format_seconds(measured.seconds), f"{len(measured.steps)} steps"


def grave_losses(report: "Report") -> list[str]:
    """Changes that the merged model has nothing of: of a whole candidate, or of much of one."""
    return describe_lost([lost for lost in report.summary.lost if _is_grave(lost)])


def small_losses(report: "Report") -> list[str]:
    """Changes of a few parameters that the merged model has nothing of."""
    return describe_lost([lost for lost in report.summary.lost if not _is_grave(lost)])


def _is_grave(lost: LostChange) -> bool:
    return not isinstance(lost, LostParameters) or lost.share >= _GRAVE_SHARE


def worst_groups(report: "Report") -> Iterator[tuple[str, tuple[GroupResidual, ...]]]:
    """The input groups that each candidate loses most in, the candidate that loses most first."""
    found: dict[str, list[GroupResidual]] = {}
    for group in report.summary.residuals_by_group:
        found.setdefault(group.candidate, []).append(group)
    for candidate, groups in found.items():
        yield candidate, tuple(groups[:_MAX_WORST])


def solves_in_words(report: "Report") -> str | None:
    """How the systems were solved, and the worst conditioned of them; None without any."""
    solves = [(step, solve) for step in report.record.steps for solve in step.solves]
    if not solves:
        return None
    routes = Counter(solve.route for _, solve in solves)
    listed = ", ".join(f"{count:,} {route}" for route, count in routes.most_common())
    step, worst = max(solves, key=lambda found: found[1].condition)
    text = f"{len(solves):,} {'systems' if len(solves) > 1 else 'system'}, by route: {listed}."
    text += f" The largest condition number is {number(worst.condition)}, in {step.name}, {worst.group}."
    if ridged := [solve.ridge for _, solve in solves if solve.ridge > 0]:
        text += f" {len(ridged)} needed a ridge, at most {number(max(ridged))} of the median of the diagonal."
    return text


def memory_in_words(report: "Report") -> str | None:
    """How near the measured peaks came to the projected ones; None where nothing was measured."""
    if report.measurements is None:
        return None
    ratios = [
        (step.peak_bytes / step.projected_bytes, step.name)
        for step in report.measurements.steps
        if step.projected_bytes > 0
    ]
    if not ratios:
        return None
    ratio, name = max(ratios)
    return f"Measured peaks reach at most {percent(ratio)} of the projected ones, in {name}."

"""The sections of a model card that follow from the record of the result: its scores, what the merge kept, pictures.

Each stands between two comments, so that it is replaced without the rest of the card, for which a plan is needed.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath

from regstream.output.merge_summary import ChangeTotal, MergeSummary, percent
from regstream.output.record import PICTURES
from regstream.output.record_schema import EvaluationRecord, ResultRecord

_CHANGES = """\
*Change* is the norm of a candidate's difference from the base, relative to the base's own norm; *kept*, the share of
that difference that the merged model has."""
_RESIDUALS = """\
*Residual* is how far what the merged linears compute is from what the candidate's compute on its calibration rows, as
a root mean square over all input groups; *of the mean*, the same with the mean of the candidates."""


def card_sections(record: ResultRecord | None = None) -> str:
    """All sections, one after another; without a record their places only."""
    return "\n".join(_between(name, "" if record is None else text(record)) for name, text in _SECTIONS.items())


def replace_sections(card: str, record: ResultRecord) -> str:
    """A card with the sections of a record in place of its own; what it has no place for is added at its end."""
    for name, text in _SECTIONS.items():
        section = _between(name, text(record))
        # The first is the section's: a manifest that is quoted below may hold anything.
        card, found = re.subn(_pattern(name), section.replace("\\", r"\\"), card, count=1)
        card += "" if found else f"\n{section}\n"
    return card


def results_table(evaluation: EvaluationRecord) -> str:
    """The scores of an evaluation, in Markdown. Only models with a score on every dataset have an average."""
    rows = []
    for row in evaluation.rows:
        cells = [f"{row.scores[name]:.3f}" if name in row.scores else "" for name in evaluation.datasets]
        average = f"{math.fsum(row.scores.values()) / len(row.scores):.3f}" if all(cells) else ""
        rows.append((row.model, *cells, average))
    return _table((evaluation.metric, *evaluation.datasets, "average"), rows)


def _between(name: str, text: str) -> str:
    return f"{_start(name)}\n" + (f"\n{text}\n\n" if text else "") + _end(name)


def _start(name: str) -> str:
    return f"<!-- regstream {name} -->"


def _end(name: str) -> str:
    return f"<!-- end regstream {name} -->"


def _pattern(name: str) -> str:
    return f"(?ms)^{re.escape(_start(name))}$.*?^{re.escape(_end(name))}$"


def _results(record: ResultRecord) -> str:
    return "" if record.evaluation is None else f"## Results\n\n{results_table(record.evaluation)}"


def _kept(record: ResultRecord) -> str:
    """A row for each candidate, and the input group that fits a candidate worst."""
    summary = MergeSummary.of(record.steps)
    changes = {total.candidate: total for total in summary.changes}
    residuals = {total.candidate: total for total in summary.residuals}
    if not changes and not residuals:
        return ""
    rows = []
    for name in changes or residuals:
        cells = list(_change_cells(changes[name])) if changes else []
        if residuals:
            found = residuals.get(name)
            cells += ["", ""] if found is None else [percent(found.merged), percent(found.mean)]
        rows.append((name, *cells))
    heading = ("candidate", *["change", "kept"] * bool(changes), *["residual", "of the mean"] * bool(residuals))
    text = "\n".join([_CHANGES] * bool(changes) + [_RESIDUALS] * bool(residuals))
    worst = f"\n\nThe largest residual: {summary.residuals_by_group[0].describe()}." if residuals else ""
    return f"## What the merge kept\n\n{text}\n\n{_table(heading, rows)}{worst}"


def _change_cells(total: ChangeTotal) -> Iterator[str]:
    """The relative size of a candidate's change, and the share of it that was kept."""
    yield percent(total.norm / total.base_norm) if total.base_norm else ""
    yield "" if total.kept is None else percent(total.kept)


def _pictures(record: ResultRecord) -> str:
    paths = [PurePosixPath(name) for name in sorted(record.files)]
    pictures = [path for path in paths if path.parent == PurePosixPath(PICTURES) and path.suffix == ".png"]
    lines = [f"![{path.stem.replace('-', ' ').capitalize()}]({path})" for path in pictures]
    return "\n\n".join(["## Pictures", *lines]) if lines else ""


def _table(heading: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["|" + "---|" * len(heading), *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join([f"| {' | '.join(heading)} |", *lines])


_SECTIONS: Mapping[str, Callable[[ResultRecord], str]] = {"results": _results, "kept": _kept, "pictures": _pictures}

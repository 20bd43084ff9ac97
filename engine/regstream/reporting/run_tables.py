"""The page's tables of how a merge was made: solves, time, memory, files and digests."""

from collections.abc import Iterator, Mapping
from typing import Any

from regstream.output.record import is_for_people
from regstream.output.record_schema import ResultRecord, SolveRecord
from regstream.reporting.fit_tables import short_group
from regstream.reporting.measurements import MeasuredStep, Measurements, WorkTotal
from regstream.reporting.table import NOTHING, Table, number, share
from regstream.units import format_bytes, format_seconds


def solve_table(record: ResultRecord) -> Table:
    """A row for each system that was solved."""
    return Table(
        caption="Solves by block and input group",
        columns=("input group", "route", "inputs", "tokens", "condition", "ridge", "kept of the spectrum", "residual"),
        rows=tuple(_solve_row(step.name, solve) for step in record.steps for solve in step.solves),
        words=frozenset({1}),
    )


def kept_spectrum(solve: SolveRecord) -> float:
    """The share of the inputs, or with the route `spectral` of the directions, that the calibration tokens decide."""
    return 1 - solve.dead_inputs / solve.in_features


def work_table(measurements: Measurements) -> Table:
    """A row for each kind of work."""
    total = measurements.seconds

    def row(kind: str, found: WorkTotal) -> tuple[str, ...]:
        moved = format_bytes(found.num_bytes) if found.num_bytes else NOTHING
        return kind, format_seconds(found.seconds), share(found.seconds / total if total else None), moved

    return Table(
        caption="Time by kind of work",
        columns=("work", "time", "share", "bytes moved"),
        rows=(
            *(row(kind, found) for kind, found in measurements.work.items()),
            ("all steps", format_seconds(total), share(1.0), NOTHING),
        ),
        total=True,
    )


def step_table(measurements: Measurements) -> Table:
    """A row for each step."""
    has_device = measurements.device_peak_step is not None
    device = ("accelerator measured", "accelerator projected") if has_device else ()

    def cells(step: MeasuredStep) -> Iterator[str]:
        yield step.name
        yield format_seconds(step.seconds)
        yield format_bytes(step.peak_bytes)
        yield format_bytes(step.projected_bytes)
        if has_device:
            yield format_bytes(step.device_peak_bytes)
            yield format_bytes(step.device_projected_bytes)

    return Table(
        caption="Time and peak memory by step",
        columns=("step", "time", "measured", "projected", *device),
        rows=tuple(tuple(cells(step)) for step in measurements.steps),
    )


def file_table(record: ResultRecord) -> Table:
    """A row for each file of the result; not of the report itself, nor of the card, which people may edit."""
    return Table(
        caption="Files of the result",
        columns=("file", "size", "SHA-256"),
        rows=tuple(
            (name, format_bytes(found.bytes), found.sha256)
            for name, found in record.files.items()
            if not is_for_people(name)
        ),
        words=frozenset({2}),
    )


def input_table(record: ResultRecord) -> Table:
    """A row for each digest, version and setting that decides the result."""
    entries = {name: value for name, value in (record.identity.model_extra or {}).items() if name != "manifest"}
    return Table(
        caption="What decides the result: digests of the inputs, and versions",
        columns=("entry", "value"),
        rows=tuple(_leaves(entries, ())),
        words=frozenset({1}),
    )


def _solve_row(step: str, solve: SolveRecord) -> tuple[str, ...]:
    return (
        f"{step}, {short_group(solve.group)}",
        solve.route,
        f"{solve.in_features:,}",
        f"{solve.num_tokens:,}",
        number(solve.condition),
        number(solve.ridge),
        share(kept_spectrum(solve)),
        number(solve.residual),
    )


def _leaves(entry: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for name, value in entry.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, str(name)))
        else:
            yield ", ".join((*path, str(name))), str(value)

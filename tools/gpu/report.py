"""Rows of what was found, and the table of them."""

from collections.abc import Iterable
from dataclasses import dataclass

from gpu.machine import Machine
from regstream.units import format_bytes


class CheckFailed(Exception):
    """A part of the check cannot go on; the message is its row."""


@dataclass(frozen=True)
class Row:
    """What was found; `ok` is None where nothing is promised."""

    check: str
    value: str
    bound: str = ""
    ok: bool | None = None

    def __str__(self) -> str:
        verdict = {True: "ok", False: "**not ok**", None: ""}[self.ok]
        cells = (self.check, self.value, self.bound, verdict)
        return "| " + " | ".join(" ".join(cell.replace("|", "/").split()) for cell in cells) + " |"


def heading(machine: Machine) -> list[str]:
    """The lines before the rows."""
    about = ", ".join(f"{name} {value}" for name, value in machine.versions.items())
    return [f"**{machine.card}**: {about}", "", "| check | value | bound | |", "|---|---|---|---|"]


def is_ok(rows: Iterable[Row]) -> bool:
    """Whether every promise was kept."""
    return all(row.ok is not False for row in rows)


def projection(check: str, measured: int, projected: int, details: str, most: float | None) -> Row:
    """A projected peak beside a measured one, in bytes: never below it, at most so many times as much."""
    ratio = projected / measured
    return Row(
        check,
        f"{format_bytes(measured)}{details}; projected {format_bytes(projected)}: {ratio:.2f} times",
        "at least 1.00 times" if most is None else f"1.00 to {most:.2f} times",
        ok=ratio >= 1 and (most is None or ratio <= most),
    )

"""Where a step's time went, by kind of work.

The time of each moment belongs to the innermost region that is open. Waiting for another thread's read or write, or for
a shard of the hub, counts as reading or writing; what overlaps with computing does not.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch

from regstream.device.accelerator_kinds import accelerator_of

Kind = Literal[
    "candidates' forward",
    "merged forward",
    "Gram matrices",
    "right-hand sides",
    "solves",
    "formulas",
    "diagnostics",
    "reading",
    "writing",
    "exchange",
    "other",
]
Item = TypeVar("Item")
_END = object()


@dataclass
class RegionTotals:
    """One kind of work within a step."""

    seconds: float = 0.0
    num_bytes: int = 0


class Profiler:
    """Totals of the regions since the last `begin` or `finish`."""

    def __init__(self, device: torch.device) -> None:
        self._accelerator = accelerator_of(device)
        self._totals: dict[str, RegionTotals] = {}
        self._current: Kind = "other"
        self._marks: list[tuple[Kind, Any]] = []

    def begin(self) -> None:
        """Begin a step: what came before it is forgotten."""
        self._totals, self._marks = {}, []
        self._mark(self._current)

    @contextmanager
    def region(self, kind: Kind, *, num_bytes: int = 0) -> Iterator[None]:
        """Count the time within the context, and bytes that it moves, as a kind of work."""
        outer, self._current = self._current, kind
        self._mark(outer)
        try:
            yield
        finally:
            self._mark(kind)
            self._current = outer
            self._totals.setdefault(kind, RegionTotals()).num_bytes += num_bytes

    def timed_iter(self, items: Iterable[Item], kind: Kind = "reading") -> Iterator[Item]:
        """The same items; the time until each has arrived counts as a kind of work."""
        source = iter(items)
        while True:
            with self.region(kind):
                item = next(source, _END)
            if item is _END:
                return
            yield item  # type: ignore[misc]

    def finish(self) -> dict[str, RegionTotals]:
        """The totals; counting begins anew."""
        self._mark(self._current)
        accelerator = self._accelerator
        if accelerator is not None:
            accelerator.synchronize()
        for (_, before), (kind, after) in zip(self._marks, self._marks[1:], strict=False):
            seconds = after - before if accelerator is None else accelerator.seconds_between(before, after)
            self._totals.setdefault(kind, RegionTotals()).seconds += seconds
        totals = self._totals
        self.begin()
        return totals

    def _mark(self, until_now: Kind) -> None:
        # The host runs ahead of an accelerator's work: the marks go where the work goes.
        mark: Any = time.perf_counter() if self._accelerator is None else self._accelerator.mark()
        self._marks.append((until_now, mark))

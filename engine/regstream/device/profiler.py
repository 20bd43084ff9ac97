"""Where a step's time went, kind of work by kind, and how long the machine's own matrix product would have taken.

The time of each moment goes to the innermost kind that is under way. Waiting for another thread's read or write, or for
a shard of the hub, counts as reading or writing; what overlaps with computing does not.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import mean
from typing import Any, Literal, TypeVar

import torch

from regstream.device.matmul_precision import MatmulPrecision, default_precision

Kind = Literal[
    "candidates' forward",
    "merged forward",
    "Gram matrices",
    "right-hand sides",
    "solves",
    "reading",
    "writing",
    "other",
]
Item = TypeVar("Item")
_END = object()
#: How long rates that were measured are held to be the machine's.
_RATES_SECONDS = 12.0
_ANY = default_precision(torch.float32)


@dataclass
class RegionTotals:
    """One kind of work within a step. `product_seconds` is its FLOP at the rate of the machine's matrix product."""

    seconds: float = 0.0
    flop: float = 0.0
    num_bytes: int = 0
    product_seconds: float = 0.0


class Profiler:
    """Entries for the work since the last `begin` or `close`.

    `measure` tells the machine's FLOP a second of products formed in each way. It is asked now and then: processors
    that get warm, or that others share, do not keep their rate.
    """

    def __init__(self, device: torch.device, measure: Callable[[], Mapping[MatmulPrecision, float]]) -> None:
        self.device = device
        self._measure = measure
        self._rates, self._measured = [measure()], time.monotonic()
        self._entries: dict[str, RegionTotals] = {}
        self._products: dict[tuple[str, MatmulPrecision], float] = {}
        self._current: Kind = "other"
        self._marks: list[tuple[Kind, Any]] = []

    def begin(self) -> None:
        """Begin a step: what came before it is forgotten."""
        self._rates = self._rates[-1:]
        self.look()
        self._entries, self._products, self._marks = {}, {}, []
        self._mark(self._current)

    def look(self) -> None:
        """Measure the machine's rates again if it is a while since; to be called where memory is free."""
        if time.monotonic() - self._measured > _RATES_SECONDS:
            self._rates.append(self._measure())
            self._measured = time.monotonic()

    @contextmanager
    def region(
        self, kind: Kind, *, flop: float = 0.0, product: MatmulPrecision = _ANY, num_bytes: int = 0
    ) -> Iterator[None]:
        """Account for what happens within the context; `flop` of products formed so."""
        outer, self._current = self._current, kind
        self._mark(outer)
        try:
            yield
        finally:
            self._mark(kind)
            self._current = outer
            entry = self._entries.setdefault(kind, RegionTotals())
            entry.flop += flop
            entry.num_bytes += num_bytes
            if flop:
                self._products[kind, product] = self._products.get((kind, product), 0.0) + flop

    def timed_iter(self, items: Iterable[Item]) -> Iterator[Item]:
        """The same items; the time until each is there counts as reading."""
        source = iter(items)
        while True:
            with self.region("reading"):
                item = next(source, _END)
            if item is _END:
                return
            yield item  # type: ignore[misc]

    def finish(self) -> dict[str, RegionTotals]:
        """The entries, and begin anew."""
        self._mark(self._current)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        for (_, before), (kind, after) in zip(self._marks, self._marks[1:], strict=False):
            seconds = before.elapsed_time(after) / 1000 if self.device.type == "cuda" else after - before
            self._entries.setdefault(kind, RegionTotals()).seconds += seconds
        for (name, product), flop in self._products.items():
            self._entries[name].product_seconds += flop * mean(1 / rates[product] for rates in self._rates)
        entries, self._entries, self._products, self._marks = self._entries, {}, {}, []
        self._mark(self._current)
        return entries

    def _mark(self, until_now: Kind) -> None:
        # On a GPU the host runs ahead of the work: the marks go where the work goes.
        if self.device.type == "cuda":
            make: Any = torch.cuda.Event  # untyped
            event = make(enable_timing=True)
            event.record()
            self._marks.append((until_now, event))
        else:
            self._marks.append((until_now, time.perf_counter()))


def product_rates(
    device: torch.device, shapes: Mapping[MatmulPrecision, tuple[int, int, int]]
) -> dict[MatmulPrecision, float]:
    """FLOP a second of (rows, inner) by (inner, columns) formed in each way, once everything is set up."""
    return {product: _rate(device, product, *shape) for product, shape in shapes.items()}


def _rate(device: torch.device, product: MatmulPrecision, rows: int, inner: int, columns: int) -> float:
    # Of values like those of a model: with ones, units that multiply bfloat16 run up to twice as fast.
    shapes = ((rows, inner), (columns, inner))
    left, right = (torch.randn(s, dtype=product.values, device=device).to(product.dtype) for s in shapes)
    result = torch.empty(rows, columns, dtype=product.dtype, device=device)
    for _ in range(2):  # the first one sets things up
        started = _now(device)
        with product.exact_fast_matmul(device):
            torch.mm(left, right.T, out=result)
        seconds = _now(device) - started
    return 2.0 * rows * inner * columns / seconds


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()

"""On paper: what a block multiplies on a GPU and what crosses the bus for it, at rates that its maker publishes."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from bench.scale import MODELS, manifest_of, plan_on
from regstream.errors import BudgetError
from regstream.planning.disk_terms import hidden_state_bytes
from regstream.planning.plan import Plan
from regstream.planning.work import flops_of

#: Of these kinds of work the factors are bfloat16 and the sums float32.
_NARROW = ("candidates' forward", "merged forward", "Gram matrices")


@dataclass(frozen=True, kw_only=True)
class Card:
    """Memory in GiB; TFLOP a second, dense, in bfloat16 with float32 sums and in float32; GB a second of the bus.

    Of the RTX 4090, 4080 and 4070 Ti by NVIDIA's Ada whitepaper (v2.02, appendix A), where bfloat16 is twice as fast as
    float32; of the RTX 4060 by its cores and clock, in the same proportion. PCIe 4.0 of 16 lanes, the RTX 4060's of 8.
    """

    name: str
    memory: int
    narrow: float
    wide: float
    bus: float


CARDS = (
    Card(name="RTX 4060", memory=8, narrow=30.2, wide=15.1, bus=16),
    Card(name="RTX 4070 Ti", memory=12, narrow=80.2, wide=40.1, bus=32),
    Card(name="RTX 4080", memory=16, narrow=97.5, wide=48.7, bus=32),
    Card(name="RTX 4090", memory=24, narrow=165.2, wide=82.6, bus=32),
)


def paper_roofline() -> Iterator[str]:
    """A block of five candidates' merge, 64 rows of 2,048 tokens each: which bounds its time, products or the bus."""
    yield "| a block of | on | passes | TFLOP | products | over the bus, each way | copies | bound by |"
    yield "|---|---|---|---|---|---|---|---|"
    for model in MODELS:
        for card in CARDS:
            yield _line(model, card, plan_on(manifest_of(model), f"{card.memory}GiB"))


def _line(model: str, card: Card, plan: Plan) -> str:
    step = plan.steps[1]
    try:
        plan.check_memory()
    except BudgetError:
        return f"| {model} | {card.name}, {card.memory} GB | does not fit | | | | | |"
    passes, work = len(plan.passes(step)), flops_of(plan.work(step))
    narrow = sum(work[kind] for kind in _NARROW)
    wide = sum(flops for kind, flops in work.items() if kind not in _NARROW)
    products = narrow / (card.narrow * 1e12) + wide / (card.wide * 1e12)
    block = sum(math.prod(shape) for shape in step.shapes.values()) * plan.compute_dtype.itemsize
    states = hidden_state_bytes(plan)
    # Weights of every candidate and hidden states once a pass; then the merged block and hidden states again.
    up = passes * (len(plan.candidates) * block + states) + block + states
    down = block + states
    copies = up / (card.bus * 1e9)
    bound = "products" if products > copies else "the bus"
    times = max(products, copies) / min(products, copies)
    cells = [
        model,
        f"{card.name}, {card.memory} GB",
        f"{passes}",
        f"{(narrow + wide) / 1e12:,.0f}",
        f"{products:.1f} s",
        f"{up / 1e9:.1f} GB, {down / 1e9:.1f} GB",
        f"{copies:.1f} s",
        f"{bound}, {times:.0f} times",
    ]
    return f"| {' | '.join(cells)} |"

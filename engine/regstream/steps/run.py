"""One step, from its inputs on disk to its artifacts on disk."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from regstream.errors import InputError
from regstream.hidden import DamagedGeneration
from regstream.ledger import Entry
from regstream.methods import States
from regstream.plan import Plan, Step, check_tie
from regstream.shards import Written
from regstream.solve import Solve
from regstream.steps.advance import advance, rebuild
from regstream.steps.fold import fold
from regstream.steps.regress import regress
from regstream.steps.workshop import Workshop


@dataclass(frozen=True, kw_only=True)
class Artifacts:
    """What a step left on disk, durable, and how its solves went."""

    shard: str
    written: Written  # the shard as far as it is
    solves: tuple[Solve, ...]
    work: Mapping[str, Entry]  # kind by kind


@contextmanager
def _opened(plan: Plan) -> Iterator[None]:
    """Have every checkpoint open each of its shards at most once."""
    with ExitStack() as opened:
        for checkpoint in (plan.base, *(candidate.checkpoint for candidate in plan.candidates)):
            opened.enter_context(checkpoint.kept_open())
        yield


def run_step(step: Step, workshop: Workshop) -> Artifacts:
    """Do a step; where the hidden states that enter it turn out to be damaged, make them again first."""
    try:
        return _run(step, workshop)
    except DamagedGeneration as damage:
        workshop.warn(f"{damage}; making the hidden states of depth {step.depth} again from the merged blocks")
        rebuild(step, workshop)
        return _run(step, workshop)


def _run(step: Step, workshop: Workshop) -> Artifacts:
    """Write a step's part of its shard and, where a later step needs it, the next generation of hidden states.

    Both are durable on return. After an error neither half a part nor a claim of one is left; hidden states
    may be, and are overwritten when the step is run again.
    """
    plan = workshop.plan
    solves: tuple[Solve, ...] = ()
    try:
        with (
            _opened(plan),
            workshop.shards.write(plan.parts[step.index]) as writer,
        ):
            if step.index == 0:
                for tie in plan.ties:
                    check_tie(tie)
            if step.regressed:
                solves = regress(step, workshop, writer)
            else:
                for tensor in step.tensors:
                    fold(tensor, plan, writer, workshop.ledger)
                    workshop.progress(tensor.name)
    except OverflowError as error:
        raise InputError(f"{step.name}: {error}; ask for a wider dtype in [merge]") from error
    if step.feeds and not (step.regressed and plan.method.states is States.OWN):
        advance(step, workshop)
    return Artifacts(
        shard=step.shard,
        written=workshop.shards.written(plan.parts[step.index]),
        solves=solves,
        work=workshop.ledger.close(),
    )


def amount_of_work(step: Step, plan: Plan) -> int:
    """How many units of progress a step reports."""
    num_batches = sum(len(c.rows.batches) for c in plan.candidates) if plan.method.states is not States.NONE else 0
    if not step.regressed:
        return len(step.tensors) + num_batches * step.feeds
    forward_passes = len(plan.passes(step)) + (step.feeds and plan.method.states is States.MERGED)
    return forward_passes * num_batches + len(step.regressed) * (len(plan.candidates) + 1)

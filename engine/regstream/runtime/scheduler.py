"""The main loop: runs each remaining step, commits it, and publishes the result at the end."""

import time
from collections.abc import Generator

from regstream.device.matmul_precision import float32_products
from regstream.device.memory import measured_peak
from regstream.events import Listener, RunFinished, RunStarted, Warned, ignore_event
from regstream.output.lost_changes import lost_changes
from regstream.output.ownership import check_output
from regstream.output.publish import changed_copies, copied_files, publish
from regstream.output.record import is_published
from regstream.output.result_identity import check_result
from regstream.planning.plan import Plan
from regstream.ranks.group import Ranks, ending_together, ranks_of
from regstream.runtime.claim import claimed, release, remove_leftover_state
from regstream.runtime.commit import commit_step
from regstream.runtime.input_files import InputFiles
from regstream.runtime.resume import check_alike, committed_steps, open_journal, refuse_damaged
from regstream.runtime.step import progress_units, run_step
from regstream.runtime.step_context import StepContext
from regstream.storage.journal import Journal
from regstream.units import format_names


@ending_together()
def run(
    plan: Plan,
    *,
    restart: bool = False,
    ranks_changed: bool = False,
    full_digest: bool = False,
    listener: Listener = ignore_event,
) -> None:
    """Merge, from where the journal ends to a published result; raises as `run_stepwise` does."""
    stepwise = run_stepwise(
        plan, restart=restart, ranks_changed=ranks_changed, full_digest=full_digest, listener=listener
    )
    for _ in stepwise:
        pass


def run_stepwise(
    plan: Plan,
    *,
    restart: bool = False,
    ranks_changed: bool = False,
    full_digest: bool = False,
    takes_turns: bool = False,
    listener: Listener = ignore_event,
) -> Generator[int, None, None]:
    """Merge as `run` does, and yield the index of each remaining step before it is run.

    Every rank runs this; rank 0 has journal and output. `ranks_changed`: an unfinished run may have had another number
    of ranks. `takes_turns`: other merges run meanwhile, so that no buffer is kept from one step to the next.

    Raises:
        BudgetError: memory or disk space does not suffice; nothing was written.
        InputError: the output holds files that no run made, or an input is damaged; committed steps stay.
        RankError: another rank has ended.
        ResumeError: an input changed since the run began, or another process is running the merge.
        SolveError: a regression has no trustworthy solution; committed steps stay.
    """
    started, ranks = time.monotonic(), ranks_of(plan.rank_id)
    if ranks.is_first:
        check_output(plan)  # files of others are refused before any digest is computed
    inputs = InputFiles(plan, full=full_digest, copied=copied_files(plan))
    check_alike(ranks, inputs.identity, listener)
    if ranks.from_first(not restart and ranks.is_first and is_published(plan.output)):
        _confirm(plan, ranks, inputs, listener, full=full_digest)
        return
    plan.validate()  # over a budget: refused before any weight is read
    with claimed(plan, ranks, restart=restart, listener=listener):
        journal = _open_journal(plan, inputs, listener, ranks_changed=ranks_changed, full=full_digest)
        context = StepContext(plan, listener, {} if journal is None else journal.shards, ranks)
        done = committed_steps(context, journal, inputs.identity)
        listener(_run_started(plan, done))
        peak_bytes = yield from _run_steps(context, journal, done, inputs, listener, takes_turns=takes_turns)
        if journal is not None:
            peak_bytes = _publish(plan, inputs, journal, full=full_digest)
        release(plan, ranks, listener)
    for line in () if takes_turns or not ranks.is_first else lost_changes(plan):  # of a trial nobody wants to know
        listener(Warned(message=line))
    listener(RunFinished(output=str(plan.output), seconds=time.monotonic() - started, peak_bytes=peak_bytes))


def _run_steps(
    context: StepContext,
    journal: Journal | None,
    done: int,
    inputs: InputFiles,
    listener: Listener,
    *,
    takes_turns: bool,
) -> Generator[int, None, int]:
    """Run the steps that the journal lacks; returns the peak memory of this rank in them, in bytes."""
    plan, peak_bytes = context.plan, 0
    # Shards are downloaded before their step, and evicted after.
    with plan.prefetcher.running(plan.step_shards, listener):
        for step in plan.steps[done:]:
            yield step.index
            context.announce(step, progress_units(step, plan))
            context.reset_step(step)
            plan.prefetcher.begin_step(step.index)
            with float32_products(plan.device), measured_peak(plan.device) as peak:
                artifacts = run_step(step, context)  # stem | block | head
            inputs.check(listener)  # the inputs are still those of the run's identity
            committed = commit_step(step, context, artifacts, peak, journal)  # the only commit point
            context.drop_before(step)  # only after the commit
            listener(committed)
            peak_bytes = max(peak_bytes, peak.num_bytes)
            if takes_turns:
                context.release()
    return peak_bytes


def _open_journal(
    plan: Plan, inputs: InputFiles, listener: Listener, *, ranks_changed: bool, full: bool
) -> Journal | None:
    """Rank 0's journal; None on the others."""
    if plan.rank_id.rank:
        return None
    return open_journal(plan, inputs.identity, ranks_changed=ranks_changed, full=full, listener=listener)


def _publish(plan: Plan, inputs: InputFiles, journal: Journal, *, full: bool) -> int:
    """Make the committed shards a model that loads; returns the peak memory of all steps, in bytes."""
    refuse_damaged(plan, journal, full=full)
    check_output(plan)  # files added meanwhile would be loaded in place of the result
    publish(plan, inputs.identity, journal.committed)  # config and provenance last: whole or not at all
    return max(step.peak_bytes for step in journal.committed)


def _run_started(plan: Plan, done: int) -> RunStarted:
    total, output = len(plan.steps), str(plan.output)
    return RunStarted(done=done, total=total, output=output, step_seconds=plan.step_seconds)


def _confirm(plan: Plan, ranks: Ranks, inputs: InputFiles, listener: Listener, *, full: bool) -> None:
    """Check that the finished result is that of the merge, and remove what its run has left."""
    if ranks.is_first:
        advice = "use --restart to replace it, or choose another output to keep it"
        check_result(plan, inputs.identity, advice=advice, full=full)
        if changed := changed_copies(plan):
            kept = "changed since they were copied; the result has the earlier ones, --restart replaces them"
            listener(Warned(message=f"base: {format_names(changed, 3)}: {kept}"))
    ranks.gather("confirmed")
    remove_leftover_state(plan, ranks, listener)
    listener(RunFinished(output=str(plan.output), seconds=0.0, peak_bytes=0, was_finished_before=True))

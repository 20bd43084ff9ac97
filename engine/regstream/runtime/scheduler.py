"""The main loop: runs each remaining step, commits it, and publishes the result at the end."""

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from regstream.device.matmul_precision import float32_products
from regstream.device.memory import measured_peak
from regstream.errors import ResumeError
from regstream.events import Listener, RunFinished, RunStarted, StepCommitted, StepStarted, Warned, ignore_event
from regstream.output.lost_changes import lost_changes
from regstream.output.ownership import check_output, claim_output, has_state, remove_result, remove_state
from regstream.output.publish import changed_copies, copied_files, publish
from regstream.output.record import is_published
from regstream.output.result_identity import check_result
from regstream.planning.plan import Plan
from regstream.runtime.input_files import InputFiles
from regstream.runtime.recovery import first_damaged
from regstream.runtime.step import committed_step, progress_units, run_step
from regstream.runtime.step_context import StepContext
from regstream.storage import durable
from regstream.storage.journal import Journal
from regstream.storage.locking import exclusive_lock
from regstream.storage.run_folder import LOCK, leftover_message
from regstream.units import format_names


def run(plan: Plan, *, restart: bool = False, full_digest: bool = False, listener: Listener = ignore_event) -> None:
    """Merge, from where the journal ends to a published result; raises as `run_stepwise` does."""
    for _ in run_stepwise(plan, restart=restart, full_digest=full_digest, listener=listener):
        pass


def run_stepwise(
    plan: Plan,
    *,
    restart: bool = False,
    full_digest: bool = False,
    takes_turns: bool = False,
    listener: Listener = ignore_event,
) -> Generator[int, None, None]:
    """Merge as `run` does, and yield the index of each remaining step before it is run.

    `takes_turns`: other merges run meanwhile, so that no buffer is kept from one step to the next.

    Raises:
        BudgetError: memory or disk space does not suffice; nothing was written.
        InputError: the output holds files that no run made, or an input is damaged; committed steps stay.
        ResumeError: an input changed since the run began, or another process is running the merge.
        SolveError: a regression has no trustworthy solution; committed steps stay.
    """
    started = time.monotonic()
    check_output(plan)  # files of others are refused before any digest is computed
    inputs = InputFiles(plan, full=full_digest, copied=copied_files(plan))
    if not restart and is_published(plan.output):
        advice = "use --restart to replace it, or choose another output to keep it"
        check_result(plan, inputs.identity, advice=advice, full=full_digest)
        if changed := changed_copies(plan):
            kept = "changed since they were copied; the result has the earlier ones, --restart replaces them"
            listener(Warned(message=f"base: {format_names(changed, 3)}: {kept}"))
        _remove_state(plan, listener)
        listener(RunFinished(output=str(plan.output), seconds=0.0, peak_bytes=0, was_finished_before=True))
        return
    plan.validate()  # over a budget: refused before any weight is read
    with _claimed(plan, restart=restart, listener=listener):
        journal = Journal.open(plan.workdir, inputs.identity, [step.name for step in plan.steps])
        _rewind(plan, journal, full=full_digest, listener=listener)  # to before the first missing or damaged shard
        listener(_run_started(plan, journal))
        yield from _run_steps(plan, journal, inputs, listener, takes_turns=takes_turns)
        _refuse_damaged(plan, journal, full=full_digest)
        check_output(plan)  # files added meanwhile would be loaded in place of the result
        publish(plan, inputs.identity, journal.committed)  # config and provenance last: whole or not at all
        _release(plan, listener)
    for line in () if takes_turns else lost_changes(plan):  # of a trial nobody wants to know
        listener(Warned(message=line))
    peak_bytes = max(step.peak_bytes for step in journal.committed)
    listener(RunFinished(output=str(plan.output), seconds=time.monotonic() - started, peak_bytes=peak_bytes))


def _run_steps(
    plan: Plan, journal: Journal, inputs: InputFiles, listener: Listener, *, takes_turns: bool
) -> Iterator[int]:
    context = StepContext(plan, listener, journal.shards)
    # Shards are downloaded before their step, and evicted after.
    with plan.prefetcher.running(plan.step_shards, listener):
        for step in plan.steps[len(journal.committed) :]:  # the steps that the journal lacks
            yield step.index
            listener(StepStarted(index=step.index, name=step.name, work=progress_units(step, plan)))
            context.reset_step(step)
            plan.prefetcher.begin_step(step.index)
            with float32_products(plan.device), measured_peak(plan.device) as peak:
                artifacts = run_step(step, context)  # stem | block | head
            inputs.check(listener)  # the inputs are still those of the run's identity
            committed = committed_step(step, artifacts, peak, plan.projected(step))
            journal.commit(committed)  # the only commit point
            context.drop_hidden_before(step.depth + 1)  # only after the commit
            listener(StepCommitted(**committed.event_fields))
            if takes_turns:
                context.release()


def _run_started(plan: Plan, journal: Journal) -> RunStarted:
    done, total, output = len(journal.committed), len(plan.steps), str(plan.output)
    return RunStarted(done=done, total=total, output=output, step_seconds=plan.step_seconds)


@contextmanager
def _claimed(plan: Plan, *, restart: bool, listener: Listener) -> Iterator[None]:
    """Lock the output and mark its files as the run's; the lock is in the output, wherever the other state is."""
    made = [*durable.make_folder(plan.workdir), *durable.make_folder(plan.state)]
    with exclusive_lock(plan.state / LOCK, plan.output):
        check_output(plan)  # again, now that no other run can change it
        if restart:
            _warn_of_leftovers(remove_result(plan), listener)
        elif is_published(plan.output):
            raise ResumeError(f"{plan.output}: another process has finished this merge; rerun to confirm the result")
        claim_output(plan)
        yield
    for folder in made:
        durable.remove_if_empty(folder)


def _rewind(plan: Plan, journal: Journal, *, full: bool, listener: Listener) -> None:
    """Revoke the commits from the first step whose shard is missing or damaged."""
    damage = first_damaged(plan, journal.committed, full=full)
    if damage is not None:
        again = plan.steps[damage.step].name
        listener(Warned(message=f"{damage.problem}; running {again} and the steps after it again"))
        journal.rewind(damage.step)


def _refuse_damaged(plan: Plan, journal: Journal, *, full: bool) -> None:
    damage = first_damaged(plan, journal.committed, full=full)
    if damage is not None:
        raise ResumeError(f"{damage.problem}, after the run had written it; rerun the command to write it again")


def _remove_state(plan: Plan, listener: Listener) -> None:
    """Remove the state of a run that was killed after it published its result."""
    if has_state(plan):
        durable.make_folder(plan.state)
        with exclusive_lock(plan.state / LOCK, plan.output):
            _release(plan, listener)


def _release(plan: Plan, listener: Listener) -> None:
    _warn_of_leftovers(remove_state(plan), listener)


def _warn_of_leftovers(left: Sequence[Path], listener: Listener) -> None:
    if left:
        listener(Warned(message=leftover_message(left)))

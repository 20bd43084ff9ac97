"""The main loop: step after step, committed one at a time, published at the end."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from regstream.device.memory import measured_peak
from regstream.errors import ResumeError
from regstream.events import Listener, RunFinished, RunStarted, StepCommitted, StepStarted, Warned, ignore
from regstream.output.ownership import check_output, claim_output, has_state, remove_result, remove_state
from regstream.output.provenance import is_published
from regstream.output.publish import copied_files, publish
from regstream.output.result_identity import check_identity
from regstream.plan.plan import Plan
from regstream.runtime.inputs import Inputs
from regstream.runtime.recovery import first_damaged
from regstream.runtime.step import amount_of_work, committed_step, run_step
from regstream.runtime.step_context import StepContext
from regstream.storage import durable
from regstream.storage.journal import Journal
from regstream.storage.locking import exclusive_lock
from regstream.storage.run_folder import LOCK, leftover_message


def run(plan: Plan, *, restart: bool = False, full_digest: bool = False, listener: Listener = ignore) -> None:
    """Merge, from where the journal ends to a published result.

    Raises:
        BudgetError: memory or disk do not suffice; nothing was begun.
        InputError: the output holds what no run made, or an input turned out to be damaged; what was committed stays.
        ResumeError: an input changed since the run began, or another process is at work.
        SolveError: a regression has no trustworthy solution; what was committed stays.
    """
    started = time.monotonic()
    check_output(plan)  # whose files stand there: refused here, no digest taken yet
    inputs = Inputs(plan, full=full_digest, copied=copied_files(plan))
    if not restart and is_published(plan.output):
        check_identity(plan, inputs.identity, full=full_digest)  # another merge's, or altered
        _remove_state(plan, listener)
        listener(RunFinished(output=str(plan.output), seconds=0.0, peak_bytes=0, already=True))
        return
    plan.validate()  # over budget, no disk: refused here, no weight read yet
    with _claimed(plan, restart=restart, listener=listener):
        journal = Journal.open(plan.workdir, inputs.identity, [step.name for step in plan.steps])
        _rewind(plan, journal, full=full_digest, listener=listener)  # to before what is missing or damaged
        listener(RunStarted(done=len(journal.committed), total=len(plan.steps), output=str(plan.output)))
        _run_steps(plan, journal, inputs, listener)
        _refuse_damaged(plan, journal, full=full_digest)
        check_output(plan)  # what came meanwhile would be loaded in place of the result
        publish(plan, inputs.identity, journal.committed)  # config and provenance last: whole or not at all
        _release(plan, listener)
    peak_bytes = max(step.peak_bytes for step in journal.committed)
    listener(RunFinished(output=str(plan.output), seconds=time.monotonic() - started, peak_bytes=peak_bytes))


def _run_steps(plan: Plan, journal: Journal, inputs: Inputs, listener: Listener) -> None:
    context = StepContext(plan, listener, journal.shards)
    with plan.prefetcher.running(plan.step_shards, listener):  # downloads shards before their step, evicts them after
        for step in plan.steps[len(journal.committed) :]:
            listener(StepStarted(index=step.index, name=step.name, work=amount_of_work(step, plan)))
            context.reset_step(step)
            plan.prefetcher.begin_step(step.index)
            with measured_peak(plan.device) as peak:
                artifacts = run_step(step, context)  # stem | block | head
            inputs.check(listener)  # what was read was what the identity says
            committed = committed_step(step, artifacts, peak, plan.projected(step))
            journal.commit(committed)  # the only commit point
            context.drop_hidden_before(step.depth + 1)  # only after the commit
            listener(StepCommitted(**committed.event_fields))


@contextmanager
def _claimed(plan: Plan, *, restart: bool, listener: Listener) -> Iterator[None]:
    """Hold the output, whose files are then the run's: by a lock in it, wherever the rest of the state is."""
    made = [*durable.make_folder(plan.workdir), *durable.make_folder(plan.state)]
    with exclusive_lock(plan.state / LOCK, plan.output):
        check_output(plan)  # again: now no other run changes it
        if restart:
            _warn_of_leftovers(remove_result(plan), listener)
        elif is_published(plan.output):
            raise ResumeError(f"{plan.output}: finished by another process meanwhile")
        claim_output(plan)
        yield
    for folder in made:
        durable.remove_if_empty(folder)


def _rewind(plan: Plan, journal: Journal, *, full: bool, listener: Listener) -> None:
    """Take back the commits from the first step on whose shard is not what was committed."""
    damage = first_damaged(plan, journal.committed, full=full)
    if damage is not None:
        again = plan.steps[damage.step].name
        listener(Warned(message=f"{damage.problem}; going back to {again}, to make it and what follows again"))
        journal.rewind(damage.step)


def _refuse_damaged(plan: Plan, journal: Journal, *, full: bool) -> None:
    damage = first_damaged(plan, journal.committed, full=full)
    if damage is not None:
        raise ResumeError(f"{damage.problem}, though the run wrote it whole; the same command makes it again")


def _remove_state(plan: Plan, listener: Listener) -> None:
    """Remove the state of a run that was killed after its last file and before this."""
    if has_state(plan):
        durable.make_folder(plan.state)
        with exclusive_lock(plan.state / LOCK, plan.output):
            _release(plan, listener)


def _release(plan: Plan, listener: Listener) -> None:
    _warn_of_leftovers(remove_state(plan), listener)


def _warn_of_leftovers(left: Sequence[Path], listener: Listener) -> None:
    if left:
        listener(Warned(message=leftover_message(left)))

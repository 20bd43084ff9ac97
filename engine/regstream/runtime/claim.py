"""What a run claims before it writes: rank 0 the output, each other rank a folder for what it has of the state."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from regstream.errors import ResumeError
from regstream.events import Listener, Warned
from regstream.output.ownership import check_output, claim_output, has_state, remove_result, remove_state
from regstream.output.record import is_published
from regstream.planning.plan import Plan
from regstream.ranks.group import Ranks
from regstream.storage import durable
from regstream.storage.leftovers import leftover_message
from regstream.storage.locking import exclusive_lock
from regstream.storage.run_folder import ENDING_SECONDS, LOCK


@contextmanager
def claimed(plan: Plan, ranks: Ranks, *, restart: bool, listener: Listener) -> Iterator[None]:
    """Claim what this rank writes to, while the context is open."""
    if ranks.is_first:
        with _claimed_output(plan, restart=restart, listener=listener):
            ranks.gather("claimed")
            yield
    else:
        ranks.gather("claimed")
        yield from _claimed_folder(plan, restart=restart)


@contextmanager
def _claimed_output(plan: Plan, *, restart: bool, listener: Listener) -> Iterator[None]:
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


def _claimed_folder(plan: Plan, *, restart: bool) -> Generator[None]:
    plan.run_folder.check()  # a file of others with the name of the lock stays as it is
    made = durable.make_folder(plan.workdir)
    with exclusive_lock(plan.workdir / LOCK, plan.workdir, wait_seconds=ENDING_SECONDS):
        plan.run_folder.check()
        plan.run_folder.mark()
        if restart:
            plan.run_folder.clear()
        yield
    for folder in made:
        durable.remove_if_empty(folder)


def release(plan: Plan, ranks: Ranks, listener: Listener) -> None:
    """Remove the state of a finished run: that of other ranks first."""
    left = [] if ranks.is_first else [str(path) for path in plan.run_folder.remove()]
    of_others = [Path(path) for paths in ranks.gather(left) for path in paths]
    if ranks.is_first:
        _warn_of_leftovers(list(dict.fromkeys([*remove_state(plan), *of_others])), listener)


def remove_leftover_state(plan: Plan, ranks: Ranks, listener: Listener) -> None:
    """Remove the state of a run that was killed after it published its result: that of other ranks first."""
    if not ranks.is_first:
        plan.run_folder.check()
        _warn_of_leftovers(plan.run_folder.remove(), listener)
    ranks.gather("removed")
    if ranks.is_first and has_state(plan):
        durable.make_folder(plan.state)
        with exclusive_lock(plan.state / LOCK, plan.output):
            _warn_of_leftovers(remove_state(plan), listener)


def _warn_of_leftovers(left: Sequence[Path], listener: Listener) -> None:
    if left:
        listener(Warned(message=leftover_message(left)))

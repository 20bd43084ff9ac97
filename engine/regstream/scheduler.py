"""The main loop: step after step, committed one at a time, published at the end."""

import time

from regstream import durable
from regstream.errors import ResumeError
from regstream.events import Listener, RunFinished, RunStarted, StepCommitted, StepStarted, ignore
from regstream.journal import Identity, Journal, differences, identify, run_lock
from regstream.memory import measured_peak
from regstream.plan import Plan
from regstream.publish import clear, is_published, publish, read_provenance
from regstream.steps import Workshop, amount_of_work, run_step


def run(plan: Plan, *, restart: bool = False, full_digest: bool = False, listener: Listener = ignore) -> None:
    """Merge, from where the journal ends to a published result.

    Raises:
        BudgetError: memory or disk do not suffice; nothing was begun.
        InputError: an input turned out to be damaged; what was committed stays.
        ResumeError: an input changed since the run began, or another process is at work.
        SolveError: a regression has no trustworthy solution; what was committed stays.
    """
    started = time.monotonic()
    identity = identify(plan, full=full_digest)
    if not restart and is_finished(plan, identity):
        listener(RunFinished(output=str(plan.output), seconds=0.0, peak_bytes=0, already=True))
        return
    plan.validate()  # over budget, no disk: refused here, no weight read yet
    durable.make_folder(plan.output)
    durable.make_folder(plan.workdir)
    with run_lock(plan.workdir / "lock"):
        if restart:
            clear(plan)
        journal = Journal.open(plan.workdir, identity, plan.steps)  # refuses if any input changed since
        workshop = Workshop(plan, listener, journal.shards)
        listener(RunStarted(done=len(journal.committed), total=len(plan.steps), output=str(plan.output)))
        with plan.depot.working(plan.stages, listener):  # shards of the hub come when they are needed, and go after
            for step in journal.remaining(plan.steps):
                listener(StepStarted(index=step.index, name=step.name, work=amount_of_work(step, plan)))
                workshop.tidy(step)
                plan.depot.begin(step.index)
                with measured_peak(plan.device) as peak:
                    artifacts = run_step(step, workshop)  # stem | block | head
                committed = journal.commit(step, artifacts, peak, plan.projected(step))  # the only commit point
                workshop.hidden.drop_before(step.depth + 1)  # only after the commit
                listener(StepCommitted(**committed.measured))
        publish(plan, identity, journal.committed)  # config and provenance last: whole or not at all
    finished = RunFinished(
        output=str(plan.output),
        seconds=time.monotonic() - started,
        peak_bytes=max(step.peak_bytes for step in journal.committed),
        product_share=journal.product_share,
    )
    listener(finished)


def is_finished(plan: Plan, identity: Identity) -> bool:
    """Whether this very merge already stands in the output.

    Raises:
        ResumeError: the result of another merge stands there, and no run is under way.
    """
    if not is_published(plan.output):
        return False
    changed = list(differences(read_provenance(plan.output)["identity"], identity))
    if not changed:
        durable.remove_tree(plan.workdir)  # a kill may have come between the last file and this
        return True
    raise ResumeError(
        f"{plan.output}: holds the result of another merge: {'; '.join(changed)};"
        " --restart replaces it, another output keeps it"
    )

"""Where a run goes on: the journal, the committed shards, and the hidden states that enter the next step."""

import json

from regstream.device.matmul_precision import float32_products
from regstream.errors import ResumeError
from regstream.events import Listener, Warned
from regstream.planning.plan import Plan
from regstream.ranks.group import Ranks
from regstream.runtime.propagate import rebuild
from regstream.runtime.recovery import first_damaged
from regstream.runtime.step_context import StepContext
from regstream.storage import durable
from regstream.storage.hidden_states import HiddenStates
from regstream.storage.identity_differences import Identity, differences, differing_ranks
from regstream.storage.journal import Journal
from regstream.storage.run_folder import STRETCH
from regstream.units import format_bytes


def check_alike(ranks: Ranks, identity: Identity, listener: Listener) -> None:
    """Refuse ranks that do not see the same merge; a processor or accelerator of another kind is a warning.

    Raises:
        ResumeError: names what differs and the rank.
    """
    first, *others = identities = ranks.gather(identity)
    for rank, changed in differing_ranks([{**found, "device": {}} for found in identities]):
        raise ResumeError(f"{ranks.label(rank)} sees other inputs than rank 0: {changed}; make them the same")
    for rank, found in enumerate(others, start=1):
        if ranks.is_first and found["device"] != first["device"]:
            names = f"{found['device']['name']}, rank 0 on {first['device']['name']}"
            listener(Warned(message=f"{ranks.label(rank)} computes on {names}: the last bits depend on which is which"))


def open_journal(plan: Plan, identity: Identity, *, ranks_changed: bool, full: bool, listener: Listener) -> Journal:
    """Open the journal, without the commits from the first step on whose shard is missing or damaged.

    Raises:
        ResumeError: an input changed since the run began, or the number of ranks did without `ranks_changed`.
    """
    _accept_ranks(plan, identity, ranks_changed=ranks_changed)
    journal = Journal.open(plan.workdir, identity, [step.name for step in plan.steps])
    damage = first_damaged(plan, journal.committed, full=full)
    if damage is not None:
        again = plan.steps[damage.step].name
        listener(Warned(message=f"{damage.problem}; running {again} and the steps after it again"))
        journal.rewind(damage.step)
    return journal


def _accept_ranks(plan: Plan, identity: Identity, *, ranks_changed: bool) -> None:
    """Have the unfinished run go on with another number of ranks, if it may: all hidden states are made again."""
    begun = Journal.begun_identity(plan.workdir)
    before, now = begun.get("ranks", 1), identity.get("ranks", 1)
    # Launchers give each of several ranks fewer threads.
    threads = {key: identity["device"][key] for key in identity["device"] if key == "OMP_NUM_THREADS"}
    of_ranks = {"ranks": now, "device": {**begun.get("device", {}), **threads}}
    if not begun or before == now or any(differences({**begun, **of_ranks}, {**identity, "ranks": now})):
        return  # where inputs changed too, opening the journal names all that did
    if not ranks_changed:
        committed = Journal.read_committed(plan.workdir)
        num_bytes = format_bytes(sum(plan.written_bytes(plan.steps[step.index]) for step in committed))
        raise ResumeError(
            f"{plan.workdir}: begun on {before} ranks, which are {now} now; --ranks-changed goes on, and makes the"
            f" hidden states again from {len(committed)} merged steps ({num_bytes}); --restart starts over"
        )
    for folder in plan.hidden_folders.values():
        HiddenStates(folder, plan.compute_dtype).clear()
    Journal.change_identity(plan.workdir, {**identity, **({"ranks": now} if now > 1 else {})})


def committed_steps(context: StepContext, journal: Journal | None, identity: Identity) -> int:
    """How many steps are committed. What the next one reads is on every rank then; all of them call this.

    Raises:
        RankError: another rank has ended.
    """
    ranks, plan = context.ranks, context.plan
    count: int = ranks.from_first(None if journal is None else len(journal.committed))
    if ranks.size == 1:
        return count  # where hidden states are damaged, the step finds out
    _forget_other_stretch(context, identity)
    if not 0 < count < len(plan.steps):
        return count
    for step in plan.steps[:count]:
        if context.results.is_read_later(step):
            context.results.share(step)
    has_all = not plan.steps[count - 1].writes_hidden_states or context.has_hidden(plan.steps[count - 1].depth + 1)
    lacking = [ranks.label(rank) for rank, found in enumerate(ranks.gather(has_all)) if not found]
    if lacking:
        if ranks.is_first:
            context.warn(f"{', '.join(lacking)}: hidden states are missing; computing them again from the stem on")
        with float32_products(plan.device):  # as in the steps of the run
            rebuild(plan.steps[count], context, is_lacking=not has_all)
    return count


def _forget_other_stretch(context: StepContext, identity: Identity) -> None:
    """Remove hidden states that a rank has of another stretch of the batches, as of another number of ranks."""
    path = context.plan.workdir / STRETCH
    parts = {
        candidate.name: [part.start, part.stop] for candidate in context.plan.candidates if (part := candidate.part)
    }
    stretch = json.dumps({"identity": identity, "batches": parts}, sort_keys=True).encode()
    if not path.is_file() or path.read_bytes() != stretch:
        context.clear_hidden()
        durable.write_file(path, stretch)


def refuse_damaged(plan: Plan, journal: Journal, *, full: bool) -> None:
    """Refuse to publish shards that were damaged since they were committed.

    Raises:
        ResumeError: names the shard.
    """
    damage = first_damaged(plan, journal.committed, full=full)
    if damage is not None:
        raise ResumeError(f"{damage.problem}, after the run had written it; rerun the command to write it again")

"""From a manifest to a plan, by one process or by several ranks, each of which gets its part.

Rank 0 plans first; the others take what it has chosen: settings of method "auto", commits of the hub, the dtype.
"""

from dataclasses import replace

from regstream.device.accelerator_kinds import accelerator_of
from regstream.errors import ManifestError
from regstream.events import Listener
from regstream.manifest.schema import Manifest
from regstream.methods import AUTO
from regstream.methods.search_space import Settings
from regstream.planning.memory_terms import MemorySpace
from regstream.planning.plan import Plan
from regstream.planning.planning import make_plan
from regstream.planning.rank_share import share_of
from regstream.ranks.group import Ranks, ending_together
from regstream.storage.identity_differences import Identity


@ending_together()
def plan_together(
    ranks: Ranks,
    manifest: Manifest,
    *,
    begun: Identity,
    settings: Settings | None,
    device: str | None,
    for_this_machine: bool,
    listener: Listener,
) -> Plan:
    """Do what `api.plan` says, and raise as it does.

    `begun` is the identity of an unfinished run or of a result, and `settings` those that it has chosen; they are used
    on rank 0.

    Raises:
        RankError: another rank cannot plan the merge.
    """

    def plan_with(settings: Settings | None, begun: Identity) -> Plan:
        return make_plan(
            manifest if settings is None else manifest.with_settings(settings),
            device=device,
            for_this_machine=for_this_machine,
            commits=begun.get("hub", {}),
            begun_dtype=begun.get("dtypes", {}).get("compute"),
            rank_id=ranks.id,
            listener=listener,
        )

    if ranks.size == 1:
        return plan_with(settings, begun)
    if ranks.is_first and manifest.merge.method == AUTO and settings is None:
        advice = "`regstream tune`, without a launcher, writes the settings into the manifest"
        raise ManifestError(f'{manifest.source}: method "auto" does not tune on several ranks; {advice}')
    first = plan_with(settings, begun) if ranks.is_first else None
    if first is not None:
        begun = {"hub": dict(first.commits), "dtypes": {"compute": str(first.compute_dtype)}}
    settings, begun = ranks.from_first([settings, begun])
    return _share(first or plan_with(settings, begun), ranks)


def _share(plan: Plan, ranks: Ranks) -> Plan:
    """A rank's part of the plan that all ranks have made.

    Raises:
        ManifestError: their devices are of several kinds.
    """
    kinds: list[str] = ranks.gather(plan.device.type)
    if (other := next((rank for rank, kind in enumerate(kinds) if kind != kinds[0]), None)) is not None:
        raise ManifestError(
            f'{ranks.label(other)} would compute on "{kinds[other]}", rank 0 on "{kinds[0]}"; set [resources]'
            " device to one that every rank has"
        )
    accelerator = accelerator_of(plan.device)
    ranks.send_directly(None if accelerator is None else accelerator.collectives)
    available: list[dict[MemorySpace, int]] = ranks.gather(plan.available_here)
    least = {space: min(rank[space] for rank in available) for space in plan.available_here}
    return _with_common_passes(share_of(replace(plan, available=least), ranks.id), ranks)


def _with_common_passes(share: Plan, ranks: Ranks) -> Plan:
    """Have input groups go through in the same passes everywhere: of those that ranks find, in each step the most.

    They find others where they need other memory beside what all need: one has shards of the hub, another fetches them.
    """
    whole = share.whole
    assert whole is not None
    found: list[list[list[list[str]]]] = ranks.gather([whole.passes(step) for step in whole.steps])
    most = (max(by_rank, key=len) for by_rank in zip(*found, strict=True))
    passes = tuple(tuple(tuple(groups) for groups in passes) for passes in most)
    return replace(share, common_passes=passes, whole=replace(whole, common_passes=passes))

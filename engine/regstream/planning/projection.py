"""The memory that a step needs, and the bytes that it reads and writes, from shapes alone.

One pass over a block regresses all input groups if their sums fit into memory together. Otherwise there are several
passes, each of which repeats the forward passes for some of the groups.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

from regstream.planning.disk_terms import copied_bytes, hidden_state_bytes, scratch_bytes
from regstream.planning.memory_terms import Groups, MemorySpace, memory_terms
from regstream.planning.opened_merge import OpenedMerge
from regstream.planning.reads import reads
from regstream.planning.step import Step


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Bytes that one step needs. `terms` add up to its memory in addition to the runtime's, by memory space."""

    passes: tuple[Groups, ...]  # input groups; empty where nothing is regressed
    terms: Mapping[MemorySpace, Mapping[str, int]]
    loads_ahead: bool  # an accelerator gets the next candidate's block while it computes with this one's
    read_bytes: int
    write_bytes: int

    def memory_bytes(self, space: MemorySpace) -> int:
        """The sum of the terms of a memory space."""
        return sum(self.terms[space].values()) if space in self.terms else 0


def project(
    merge: OpenedMerge,
    step: Step,
    budgets: Mapping[MemorySpace, int],
    passes: tuple[Groups, ...] | None = None,
) -> Projection:
    """Project a step, in as few passes as the budgets, less the runtime, allow where none are given."""
    passes = _passes(merge, step, budgets) if passes is None else passes
    by_pass = [memory_terms(merge, step, groups) for groups in passes or ((),)]
    ahead = [_with_next_block(terms) for terms in by_pass]
    has_next = bool(passes) and merge.device.type != "cpu" and len(merge.candidates) > 1
    loads_ahead = has_next and all(fits(terms, budgets) for terms in ahead)
    by_pass = ahead if loads_ahead else by_pass
    peaks = {
        space: max((terms[space] for terms in by_pass), key=lambda terms: sum(terms.values())) for space in by_pass[0]
    }
    return Projection(
        passes=passes,
        terms=peaks,
        loads_ahead=loads_ahead,
        read_bytes=_read_bytes(merge, step, passes),
        write_bytes=_write_bytes(merge, step),
    )


def _passes(merge: OpenedMerge, step: Step, budgets: Mapping[MemorySpace, int]) -> tuple[Groups, ...]:
    """Pack groups in the order of the shard; a group that does not fit has a pass of its own.

    More groups take more memory, so that how many fit is found by halving: a block of experts has hundreds.
    """
    groups, passes = tuple(step.regressed), list[Groups]()
    while groups:
        most = 1 if merge.method.solves_groups_in_turn() else len(groups)
        counts = range(2, most + 1)
        fitting = bisect_left(counts, True, key=lambda count: _is_too_much(merge, step, groups[:count], budgets))
        passes.append(groups[: fitting + 1])
        groups = groups[fitting + 1 :]
    return tuple(passes)


def _is_too_much(merge: OpenedMerge, step: Step, groups: Groups, budgets: Mapping[MemorySpace, int]) -> bool:
    return not fits(memory_terms(merge, step, groups), budgets)


def _with_next_block(terms: Mapping[MemorySpace, Mapping[str, int]]) -> Mapping[MemorySpace, Mapping[str, int]]:
    held = terms.get("device", {})
    num_bytes = held.get("candidate's block", 0) or held.get("candidate's linears", 0)
    return {**terms, "device": {**held, "next candidate's block": num_bytes}}


def fits(terms: Mapping[MemorySpace, Mapping[str, int]], budgets: Mapping[MemorySpace, int]) -> bool:
    """Whether the terms of every memory space add up to no more than its budget."""
    return all(sum(terms[space].values()) <= budget for space, budget in budgets.items())


def _read_bytes(merge: OpenedMerge, step: Step, passes: tuple[Groups, ...]) -> int:
    read = sum(spec.num_bytes for specs in reads(merge, step, passes) for spec in specs)
    stored = scratch_bytes(merge, step)
    return read + (hidden_state_bytes(merge) + stored if step.kind == "block" and step.regressed else 0)


def _write_bytes(merge: OpenedMerge, step: Step) -> int:
    hidden = hidden_state_bytes(merge) if step.writes_hidden_states else 0
    result = merge.written_bytes(step) if merge.rank_id.rank == 0 else copied_bytes(merge, step)
    return result + hidden + scratch_bytes(merge, step)

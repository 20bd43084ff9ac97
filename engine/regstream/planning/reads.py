"""The tensors that a step reads of checkpoints, each as often as it is read."""

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import chain

from regstream.checkpoint.checkpoint import Checkpoint
from regstream.checkpoint.header import TensorSpec
from regstream.checkpoint.reader import TensorReader
from regstream.checkpoint.shared_checkpoint import SharedCheckpoint
from regstream.methods.tensor_reads import TensorReads
from regstream.planning.opened_merge import OpenedMerge
from regstream.planning.rank_share import owned_parts
from regstream.planning.step import PlannedParameter, Step

#: The names of tensors that are read of a checkpoint, one checkpoint after another. What candidates share is read once.
_Round = list[tuple[Checkpoint, Sequence[str]]]
#: Input groups that are regressed together.
_Passes = Sequence[Sequence[str]]
#: How often each tensor is read of which checkpoint.
_Counts = Mapping[str, Counter[Checkpoint]]


def reads(merge: OpenedMerge, step: Step, passes: _Passes | None = None) -> Iterator[list[TensorSpec]]:
    """The tensors that a step reads, by reader, about in order; input groups go through in these passes, or in one."""
    passes = passes or [list(step.regressed)]
    for checkpoint, *tied in merge.ties if step.index == 0 and merge.rank_id.rank == 0 else ():
        yield [checkpoint.tensors[name] for name in tied]
    for read in _rounds(merge, step, passes):
        cached: set[tuple[TensorReader, str]] = set()
        for checkpoint, names in read:
            for reader, stored in checkpoint.readers_of(names):
                yield [reader.tensors[name] for name in stored if (reader, name) not in cached]
                if isinstance(reader, SharedCheckpoint):
                    cached.update((reader, name) for name in stored)


def _rounds(merge: OpenedMerge, step: Step, passes: _Passes) -> Iterator[_Round]:
    others = step.not_regressed
    measured = owned_parts(merge, step, passes).measured
    if step.regressed:
        filled = others if merge.method.solves_groups_in_turn() else step.parameters
        if not merge.method.runs_own_blocks_only():  # what the merged block is before any solve
            yield from _repeated({p.name: _counts(merge, p) for p in filled})
        if not merge.method.solves_groups_in_turn() and merge.rank_id.size == 1:
            # Means are of candidates' blocks, which are read anyway.
            others = tuple(parameter for parameter in others if parameter.rule != "average")
    if merge.rank_id.rank > 0:  # the first writes them
        others = ()
    combined = _repeated({p.name: _counts(merge, p) for p in others})
    regression = _regression(merge, step, passes) if step.regressed else iter(())
    if merge.shared is not None and step.regressed:  # the whole block of which is held until the step ends
        diagnostics = _diagnostics(merge, step, measured)
        yield [(merge.shared, [p.name for p in step.parameters]), *chain(*regression, *combined, *diagnostics)]
    else:
        yield from regression
        yield from combined
        yield from _diagnostics(merge, step, measured)
    if step.writes_hidden_states and not step.regressed and "own" in merge.method.prefixes():
        for candidate in filter(merge.has_batches, merge.candidates):  # its own forward pass
            yield [(candidate.checkpoint, [p.name for p in (*step.parameters, *step.borrowed)])]


def _regression(merge: OpenedMerge, step: Step, passes: _Passes) -> Iterator[_Round]:
    """The prior of what is solved for, and each pass's candidates, or of the first what the reference consists of."""
    solved = step.parameters_of(list(step.regressed))
    priors = {p.name: _times(merge, p, prior.combine_reads(_num_read(p))) for p in solved if (prior := p.method.prior)}
    yield from _repeated(priors)
    own = [candidate.checkpoint for candidate in filter(merge.has_batches, merge.candidates)]
    first, is_reference = merge.candidates[0], merge.method.prior is None and merge.shared is None
    reference = [first.checkpoint] if is_reference and not merge.has_batches(first) else []
    if not merge.method.runs_candidates():  # together, passes read what is solved for once
        yield [(checkpoint, [p.name for p in solved]) for checkpoint in (*reference, *own)]
        return
    borrowed = step.borrowed if "own" in merge.method.prefixes() else ()
    for groups in passes:
        read: _Round = [(checkpoint, [p.name for p in step.parameters_of(groups)]) for checkpoint in reference]
        yield read + [(checkpoint, [p.name for p in (*step.parameters, *borrowed)]) for checkpoint in own]


def _diagnostics(merge: OpenedMerge, step: Step, measured: Container[str]) -> Iterator[_Round]:
    """What is compared with what was written: the base, and the candidates' tensors that are not the base's own."""
    if not merge.has_diagnostics:
        return
    base, names = merge.base, [p.name for p in step.parameters if p.name in measured]
    names = [name for name in names if name in base.tensors]
    read: _Round = [(base, names)]
    for checkpoint in (candidate.checkpoint for candidate in merge.candidates):
        own = [n for n in names if n in checkpoint.tensors and not checkpoint.shares_tensor(base, n)]
        read.append((checkpoint, own))
    yield read


def _repeated(counts: _Counts) -> Iterator[_Round]:
    """One round after another, in each of which a tensor is read once of a checkpoint."""
    checkpoints = list(dict.fromkeys(chain(*counts.values())))
    for number in range(max((most for times in counts.values() for most in times.values()), default=0)):
        names = {
            checkpoint: [n for n, times in counts.items() if times[checkpoint] > number] for checkpoint in checkpoints
        }
        yield [(checkpoint, found) for checkpoint, found in names.items() if found]


def _counts(merge: OpenedMerge, parameter: PlannedParameter) -> Counter[Checkpoint]:
    """How often a parameter that is not solved for is read of which checkpoint."""
    if merge.combines(parameter):
        return _times(merge, parameter, parameter.method.combine_reads(_num_read(parameter)))
    if parameter.rule == "base":
        return Counter([merge.base])
    if parameter.candidate is not None:
        return Counter([merge.candidates[parameter.candidate].checkpoint])
    return _times(merge, parameter, TensorReads(candidates=1))


def _num_read(parameter: PlannedParameter) -> int:
    """How many candidates a formula reads: a parameter's weights may leave some out."""
    return sum(share > 0 for share in parameter.shares)


def _times(merge: OpenedMerge, parameter: PlannedParameter, read: TensorReads) -> Counter[Checkpoint]:
    times = Counter({merge.base: read.base})
    for candidate, share in zip(merge.candidates, parameter.shares, strict=True):  # two may be one checkpoint
        times[candidate.checkpoint] += read.candidates * (share > 0)
    if merge.prior_model is not None:
        times[merge.prior_model] += read.prior_model
    return times

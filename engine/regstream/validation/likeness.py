"""Candidates that are the base, or each other: what was lost in saving, or named twice.

Tensors are compared by samples, whatever the shards that they lie in; files of the hub by the hub's digests.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from regstream.checkpoint.adapted import AdaptedCheckpoint
from regstream.checkpoint.checkpoint import Checkpoint
from regstream.checkpoint.source import LOCAL, Source

_SAMPLE_BYTES = 1 << 12


def likenesses(base: Checkpoint, candidates: Sequence[Checkpoint], names: Sequence[str]) -> Iterator[str]:
    """What a person should know of candidates that hold what another input holds; a line each."""
    known: dict[str, str] = {}
    original = _signature(base, names)
    same = []
    for candidate in candidates:
        signature = _signature(candidate, names)
        if signature is None:
            continue
        if signature == original:
            same.append(candidate)
            yield f"{candidate.label}: its weights are the base's, where compared; was its tuning lost in saving?"
        elif signature in known:
            yield f"{candidate.label}: its weights are those of {known[signature]}, which so counts twice"
        known.setdefault(signature, candidate.label)
    if len(same) == len(candidates):
        yield "all candidates hold the base's weights: so will the result"


def _signature(checkpoint: Checkpoint, names: Sequence[str]) -> str | None:
    """What inputs of the same values have in common; None where nothing tells."""
    if isinstance(checkpoint, AdaptedCheckpoint):
        model = _signature(checkpoint.model, names)
        return _joined([model, *(_digest(source, file) for source, file in checkpoint.adapter.inputs.values())])
    if checkpoint.source is not LOCAL:  # perhaps not there yet, and what is told must not depend on that
        files = sorted({checkpoint.tensors[name].file for name in names})
        return _joined([checkpoint.source.known_digest(file) for file in files])
    digest = hashlib.sha256()
    for sample in _samples(checkpoint, names):
        digest.update(sample)
    return digest.hexdigest()


def _digest(source: Source, file: Path) -> str | None:
    return source.fingerprint(file, full=False)["fast"] if source is LOCAL else source.known_digest(file)


def _joined(digests: Sequence[str | None]) -> str | None:
    known = [digest for digest in digests if digest is not None]
    return " ".join(known) if len(known) == len(digests) else None


def _samples(checkpoint: Checkpoint, names: Iterable[str]) -> Iterator[bytes]:
    """From the middle of each tensor, where rows that were added to a vocabulary move nothing to its end."""
    opened: dict[object, int] = {}
    try:
        for name in names:
            spec = checkpoint.tensors[name]
            if spec.file not in opened:
                opened[spec.file] = os.open(spec.file, os.O_RDONLY)
            yield f"{name} {spec.dtype} {spec.shape}".encode()
            begin = spec.begin + max(0, spec.num_bytes - _SAMPLE_BYTES) // 2
            yield os.pread(opened[spec.file], min(_SAMPLE_BYTES, spec.num_bytes), begin)
    finally:
        for descriptor in opened.values():
            os.close(descriptor)

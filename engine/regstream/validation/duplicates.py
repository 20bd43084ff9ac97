"""Warns of candidates whose weights equal the base's (training lost in saving) or another candidate's (listed twice).

Local tensors are compared by samples, however they are sharded; files of the hub by the digests that the hub lists.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from regstream.checkpoint.adapted_checkpoint import AdaptedCheckpoint
from regstream.checkpoint.checkpoint import Checkpoint
from regstream.checkpoint.source import LOCAL, Source

_SAMPLE_BYTES = 1 << 12


def duplicate_weights(base: Checkpoint, candidates: Sequence[Checkpoint], names: Sequence[str]) -> Iterator[str]:
    """Compare the tensors `names` of all inputs; yields a warning for each duplicate; the base may be a candidate."""
    label_of: dict[str, str] = {}
    base_signature = None if base in candidates else _signature(base, names)
    num_unchanged = 0
    for candidate in candidates:
        signature = _signature(candidate, names)
        if signature is None:
            continue
        if signature == base_signature:
            num_unchanged += 1
            yield (
                f"{candidate.label}: its weights equal the base's, as far as compared; was its training lost in saving?"
            )
        elif signature in label_of:
            yield f"{candidate.label}: its weights equal those of {label_of[signature]}, which thus counts twice"
        label_of.setdefault(signature, candidate.label)
    if num_unchanged == len(candidates):
        yield "all candidates hold the base's weights: so will the result"


def _signature(checkpoint: Checkpoint, names: Sequence[str]) -> str | None:
    """A string that is equal for checkpoints of equal values; None where the hub lists no digests."""
    if isinstance(checkpoint, AdaptedCheckpoint):
        model = _signature(checkpoint.model, names)
        return _combine([model, *(_digest(source, file) for source, file in checkpoint.adapter.inputs.values())])
    if checkpoint.source is not LOCAL:  # warnings must not depend on which files are in the cache
        files = sorted({checkpoint.tensors[name].file for name in names})
        return _combine([checkpoint.source.known_digest(file) for file in files])
    return hashlib.sha256(b"".join(_samples(checkpoint, names))).hexdigest()


def _digest(source: Source, file: Path) -> str | None:
    return source.fingerprint(file, full=False)["fast"] if source is LOCAL else source.known_digest(file)


def _combine(digests: Sequence[str | None]) -> str | None:
    present = [digest for digest in digests if digest is not None]
    return " ".join(present) if len(present) == len(digests) else None


def _samples(checkpoint: Checkpoint, names: Iterable[str]) -> Iterator[bytes]:
    """Header entry and middle bytes of each tensor: rows appended to a vocabulary do not move its end there."""
    with ExitStack() as stack:
        open_once = cache(lambda file: stack.enter_context(file.open("rb", buffering=0)))
        for name in names:
            spec = checkpoint.tensors[name]
            yield f"{name} {spec.dtype} {spec.shape}".encode()
            begin = spec.begin + max(0, spec.num_bytes - _SAMPLE_BYTES) // 2
            yield os.pread(open_once(spec.file).fileno(), min(_SAMPLE_BYTES, spec.num_bytes), begin)

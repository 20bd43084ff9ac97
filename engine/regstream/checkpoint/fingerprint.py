"""What a checkpoint's file is recognised by, when a run goes on after an interruption."""

import hashlib
import os
from pathlib import Path

from regstream import durable
from regstream.errors import InputError
from regstream.regular_file import check_regular

_SAMPLE_BYTES = 1 << 16
_NUM_SAMPLES = 64


def fingerprint(file: Path, *, full: bool) -> str:
    """A digest of a file: of all its bytes, or of its size, its start, its end, and samples spread evenly between.

    The header lies at the start, so a changed name, shape or dtype is always seen; a changed weight is seen by the
    full digest always, by the fast one where it lies in a sample.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        check_regular(file)
        return f"full:{durable.sha256(file)}" if full else f"fast:{_sampled(file)}"
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from error


def _sampled(file: Path) -> str:
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    last = max(0, size - _SAMPLE_BYTES)
    offsets = sorted({last * index // (_NUM_SAMPLES - 1) for index in range(_NUM_SAMPLES)})
    descriptor = os.open(file, os.O_RDONLY)
    try:
        for offset in offsets:
            digest.update(os.pread(descriptor, _SAMPLE_BYTES, offset))
    finally:
        os.close(descriptor)
    return digest.hexdigest()

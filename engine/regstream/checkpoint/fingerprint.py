"""The fingerprint of a checkpoint's file, which a resumed run compares with the one of its start."""

from pathlib import Path

from regstream.errors import InputError
from regstream.storage import digests
from regstream.storage.regular_file import check_regular


def fingerprint(file: Path, *, full: bool) -> dict[str, str]:
    """Digests of a file by kind: "fast", of samples, and with `full` also "full", of every byte.

    The fast digest includes the header, so any changed name, shape or dtype, and a sample of every tensor; it misses
    a changed weight outside the samples.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        check_regular(file)
        fast = {"fast": digests.sample_sha256(file)}
        return fast | {"full": digests.sha256(file)} if full else fast
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from error

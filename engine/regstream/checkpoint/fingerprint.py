"""What a checkpoint's file is recognised by, when a run goes on after an interruption."""

from pathlib import Path

from regstream.errors import InputError
from regstream.storage import digests
from regstream.storage.regular_file import check_regular


def fingerprint(file: Path, *, full: bool) -> dict[str, str]:
    """Digests of a file, by their kind: "fast", of samples of it, and where it is asked for "full", of every byte.

    The header lies at the start, so a changed name, shape or dtype is always seen; a changed weight is seen by the
    full digest always, by the fast one where it lies in a sample. Every tensor has a sample in it.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        check_regular(file)
        fast = {"fast": digests.sampled(file)}
        return fast | {"full": digests.sha256(file)} if full else fast
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from error

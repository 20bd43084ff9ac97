"""What git-lfs leaves in place of a file that was never downloaded."""

_START = b"version https://git-lfs.github.com/spec/"
#: As much of a file as has to be looked at.
POINTER_BYTES = len(_START)
#: What a person reads of it, after the file's path.
POINTER = "a git-lfs pointer, the file itself was not downloaded; fetch it (git lfs pull, or hf download)"


def is_pointer(start: bytes) -> bool:
    """Whether a file that begins so is a pointer."""
    return start.startswith(_START)

"""Recognises a git-lfs pointer: the text that git-lfs leaves in place of a file that was never downloaded."""

_START = b"version https://git-lfs.github.com/spec/"
#: How many bytes of a file `is_pointer` needs.
POINTER_BYTES = len(_START)
#: The error message, after the file's path.
POINTER_MESSAGE = "a git-lfs pointer, the file itself was not downloaded; fetch it (git lfs pull, or hf download)"


def is_pointer(start: bytes) -> bool:
    """Whether a file that begins with these bytes is a pointer."""
    return start.startswith(_START)

"""The memory that the process holds now; a progress display reads it without importing torch."""

import psutil


def resident_bytes() -> int:
    """What the operating system counts as the process's memory now, file-backed pages too."""
    return int(psutil.Process().memory_info().rss)

"""What is said of files that stay where a run removes its own."""

from collections.abc import Collection
from pathlib import Path

from regstream.units import format_names


def leftover_message(paths: Collection[Path]) -> str:
    """The warning about files that stay in a run's folder."""
    return f"{format_names(sorted(paths), 1)}: kept: regstream did not create it, so its folder stays too"

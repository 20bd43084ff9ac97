"""What is not installed of what the engine and its command line import. Only the standard library is imported here."""

import re
import sys
from importlib import metadata
from pathlib import Path

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
#: For Parquet files, which the check has none of.
_UNUSED = {"pyarrow"}


def missing() -> list[str]:
    """What is not here: Python 3.11, and the project's requirements by name. Other versions than asked for may do."""
    if sys.version_info < (3, 11):  # noqa: UP036  whoever asks may have another
        return ["Python 3.11 or newer"]
    import tomllib

    requirements = tomllib.loads(PROJECT.read_text())["project"]["dependencies"]
    names = [re.split(r"[^\w.-]", requirement)[0] for requirement in requirements]
    return [name for name in names if name not in _UNUSED and not _is_installed(name)]


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True

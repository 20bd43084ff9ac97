"""What `tools/test-installed` has built: wheel and sdist, and an environment with the wheel and what it depends on."""

import os
from pathlib import Path

import pytest

#: The folder with `dist` and `venv`.
VARIABLE = "REGSTREAM_INSTALLED"


@pytest.fixture(scope="session")
def built() -> Path:
    """The folder; without it, what depends on it is skipped."""
    if VARIABLE not in os.environ:
        pytest.skip("tools/test-installed builds and installs the package, and runs this")
    return Path(os.environ[VARIABLE])


@pytest.fixture
def environment(built: Path, tmp_path: Path) -> dict[str, str]:
    """A shell of its own with the environment's commands on the path, and nothing of this process."""
    home = tmp_path / "home"
    home.mkdir()
    path = f"{built / 'venv' / 'bin'}{os.pathsep}{os.defpath}"
    return {"PATH": path, "HOME": str(home), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

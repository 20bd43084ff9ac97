"""A slice of `tools/fuzz/run`: damaged inputs of every kind end in one line, in time, with the inputs unchanged."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.mark.slow
def test_damaged_inputs_end_well() -> None:
    # In a process of its own: cases are forked, beside which no threads may run.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(TOOLS), *sys.path])
    command = [sys.executable, "-m", "fuzz", "--cases", "60", "--seed", "1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "60 cases" in done.stdout

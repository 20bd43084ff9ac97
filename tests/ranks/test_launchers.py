"""The launchers that people have start a merge by the lines of the documentation."""

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from merging import make_merge, worst_difference
from rank_merges import ROUNDING, tensors

DOCUMENT = Path(__file__).parents[2] / "cli" / "ranks.md"
SECONDS = 180


def documented(launcher: str) -> list[str]:
    """The line of the documentation that starts a merge on one machine."""
    lines = re.findall(rf"^{launcher} .*merge\.toml$", DOCUMENT.read_text(), re.MULTILINE)
    return shlex.split(next(line for line in lines if "nnodes" not in line))


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_it_starts_the_ranks(tmp_path: Path, launcher: str) -> None:
    merge, one_process = (make_merge(tmp_path / name, num_rows=12) for name in ("ranks", "one"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command, *arguments = documented(launcher)
    flag = "--master_port" if launcher == "torchrun" else "--main_process_port"
    place = arguments.index("-m")
    arguments[place:place] = [flag, str(port)]
    arguments[-1] = str(merge.manifest)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    path = Path(sys.executable).with_name(command)
    started = subprocess.run(
        [path, *arguments], env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert started.returncode == 0, started.stderr
    assert started.stdout.splitlines()[-1] == str(merge.output)
    one_process.run()
    difference, name = worst_difference(tensors(merge.output), tensors(one_process.output))
    assert 0 < difference <= ROUNDING, f"{name}: {difference:.1e}"  # 0: one process did it all

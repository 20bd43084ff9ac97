"""An allocation that the kernel refuses ends in one line and exit code 3, whatever was at work."""

import subprocess
import sys
from pathlib import Path

import pytest

from merging import make_merge

#: Everything is imported first: how little memory libraries can be loaded in is theirs to say.
SCRIPT = """
import resource, sys
import regstream.evaluate.evaluation, regstream.output.check_model, regstream.runtime.scheduler
from regstream_cli.app import main
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
limit = int(status["VmData"].split()[0]) * 1024 + (int(sys.argv.pop(1)) << 20)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
main()
"""


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    evaluation = '[candidates.evaluation]\npath = "task{}.jsonl"\nfield = "input_ids"\n'
    folder = tmp_path_factory.mktemp("merge")
    return make_merge(folder, layers=1, hidden=1024, candidates=2, candidate=evaluation.format).manifest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "mebibytes"), [(["run"], 40), (["run"], 90), (["plan"], 4), (["evaluate", "--only", "base"], 40)]
)
def test_a_refused_allocation_is_3(
    manifest: Path, environment: dict[str, str], command: list[str], mebibytes: int
) -> None:
    environment = environment | {"PYTHONPATH": ":".join(sys.path)}
    words = [sys.executable, "-c", SCRIPT, str(mebibytes), command[0], str(manifest), *command[1:]]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 3, done.stderr
    # Libraries may have something to say of threads that were not started, when the process ends.
    [line] = [line for line in done.stderr.splitlines() if line.startswith("regstream: error: ")]
    assert "out of memory" in line
    assert "host_memory" in line

"""An allocation that the kernel refuses ends in one line and exit code 3, whatever was at work."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from merging import make_merge
from parametrize import slow

#: Everything is imported first: how little memory libraries can be loaded in is theirs to say. Each command is then a
#: process that is forked from this one, and needs no import of its own.
SCRIPT = """
import json, os, resource, sys
import regstream.evaluation.evaluation, regstream.output.check_model, regstream.runtime.scheduler
from regstream_cli.app import main

def limited(mebibytes, words):
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    limit = int(status["VmData"].split()[0]) * 1024 + (mebibytes << 20)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    sys.argv = ["regstream", *words]
    main()

for line in sys.stdin:
    mebibytes, words, stderr = json.loads(line)
    child = os.fork()
    if child == 0:
        os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT), 2)
        limited(mebibytes, words)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    evaluation = '[candidates.evaluation]\npath = "task{}.jsonl"\nfield = "input_ids"\n'
    folder = tmp_path_factory.mktemp("merge")
    return make_merge(folder, layers=1, hidden=1024, candidates=2, candidate=evaluation.format).manifest


@pytest.fixture(scope="module")
def interpreter(environment: dict[str, str]) -> Iterator["subprocess.Popen[str]"]:
    """What runs commands under a limit."""
    variables = environment | {"PYTHONPATH": ":".join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "mebibytes"),
    [(["run"], 40), slow(["run"], 90), slow(["plan"], 4), slow(["evaluate", "--only", "base"], 40)],
)
def test_a_refused_allocation_is_3(
    manifest: Path, interpreter: "subprocess.Popen[str]", tmp_path: Path, command: list[str], mebibytes: int
) -> None:
    assert interpreter.stdin is not None
    assert interpreter.stdout is not None
    words = [command[0], str(manifest), *command[1:]]
    interpreter.stdin.write(json.dumps([mebibytes, words, str(tmp_path / "stderr")]) + "\n")
    interpreter.stdin.flush()
    # Before the exit code come lines of the command's own.
    code = next(line for line in interpreter.stdout if line.strip().lstrip("-").isdigit())
    stderr = (tmp_path / "stderr").read_text()
    assert int(code) == 3, stderr
    # Libraries may have something to say of threads that were not started, when the process ends.
    [line] = [line for line in stderr.splitlines() if line.startswith("regstream: error: ")]
    assert "out of memory" in line
    assert "host_memory" in line

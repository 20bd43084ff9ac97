"""The command line against a hub: its settings come from the environment, every mistake is one line, and no shard is
fetched for it."""

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import checkpoints
import processes
from hub_server import Fault, Hub
from merging import Merge
from parametrize import slow
from regstream.storage import digests
from regstream_cli.app import cli

Command = Callable[..., "subprocess.CompletedProcess[str]"]
SHARDS = "GET /lfs/.*"
LACKING = "model-00004-of-00009.safetensors"


def whole_files(hub: Hub) -> list[str]:
    """Weights that were asked for, but for the starts of files, which are headers."""
    return [r.path for r in hub.asked(SHARDS) if not (r.range or "").startswith("bytes=0-")]


@pytest.mark.slow
def test_plan_run_verify_evaluate(
    local_once: Merge, remote: Merge, hub: Hub, command: Command, new_interpreter: Command
) -> None:
    planned = command("plan", remote.manifest, "--json")
    record = json.loads(planned.stdout)
    assert record["fetch_bytes"] > 0
    assert record["fetch_again_bytes"] == 0
    assert record["disk_peak_bytes"] > record["fetch_bytes"]
    assert whole_files(hub) == []
    told = command("plan", remote.manifest)
    assert "from the hub; at most" in told.stdout
    ran = command("run", remote.manifest)
    assert ran.returncode == 0, ran.stderr
    assert "regstream: downloading org/candidate-0: model-" in ran.stderr
    steps = json.loads((remote.output / "regstream.measured.json").read_text())["steps"]
    assert all(step["peak_bytes"] <= step["projected_bytes"] for step in steps)
    assert command("verify", remote.output).returncode == 0
    was = hub.repos["org/candidate-0"].branches["main"]
    now = hub.add("org/candidate-0", local_once.folders.base)  # what was merged is judged, whatever stands there now
    judged = command("evaluate", remote.manifest, "--json")
    assert judged.returncode == 0, judged.stderr
    assert len(json.loads(judged.stdout)["rows"]) == 7
    assert f"org/candidate-0 is at {now} now; the run continues with {was}" in judged.stderr
    assert hub.asked(f".*{now}.*") == []
    hub.repos["org/candidate-0"].branches["main"] = was
    asked = len(hub.requests)
    again = new_interpreter("run", remote.manifest, HF_HUB_OFFLINE="1")
    assert "already finished" in again.stderr
    assert len(hub.requests) == asked


@pytest.fixture
def with_mistakes(local_once: Merge, remote: Merge, hub: Hub, tmp_path: Path) -> Merge:
    """A merge, and repositories beside that it could name by mistake."""
    hub.add("org/private", local_once.folders.base, token="secret")
    lacking = shutil.copytree(local_once.folders.candidates[2], tmp_path / "lacking")
    (lacking / LACKING).unlink()
    hub.add("org/lacking", lacking)
    narrow = checkpoints.make_family(tmp_path / "narrow", "llama", candidates=1, layers=8, hidden=64)
    hub.add("org/narrow", narrow.candidates[0])
    return remote


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "line"),
    [
        (("org/candidate-2", "org/absent"), 'candidate "task2": org/absent@main: not on the hub, or private'),
        slow(("org/base", "org/base@v9"), "base: org/base@v9: the hub has no such revision"),
        slow(("org/candidate-2", "org/private"), "private: HF_TOKEN has no access to it"),
        slow(("org/candidate-2", "org/lacking"), f"names {LACKING}, which is not there"),
        slow(("org/candidate-2", "org/narrow"), "head_dim is 16, where the base has 32"),
    ],
)
def test_a_mistake_is_one_line_before_any_shard(
    with_mistakes: Merge, hub: Hub, names: tuple[str, str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "other")
    before, after = (f'"{name}"' for name in names)
    text = with_mistakes.manifest.read_text()
    assert before in text
    with_mistakes.manifest.write_text(text.replace(before, after))
    result = CliRunner().invoke(cli, ["run", str(with_mistakes.manifest)])
    assert result.exit_code == 4
    assert line in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert whole_files(hub) == []


@pytest.mark.slow
def test_a_token_is_taken_from_the_environment(local_once: Merge, remote: Merge, hub: Hub, command: Command) -> None:
    for repo in hub.repos.values():
        repo.token = "secret"
    assert command("plan", remote.manifest).returncode == 4
    assert command("plan", remote.manifest, HF_TOKEN="secret").returncode == 0
    ran = command("run", remote.manifest, HF_TOKEN="secret")
    assert ran.returncode == 0, ran.stderr


@pytest.mark.slow
def test_asked_to_stop_it_stops_while_a_shard_comes(
    local_once: Merge, remote: Merge, hub: Hub, environment: dict[str, str], tmp_path: Path
) -> None:
    never = threading.Event()
    shard = sorted(local_once.folders.candidates[1].glob("*.safetensors"))[5]
    hub.faults = [Fault(f"GET /lfs/{digests.sha256(shard)}", times=99, pause=never)]
    with (tmp_path / "stderr").open("wb") as stderr:
        words = ["run", remote.manifest, "--json"]
        with processes.started(words, environment, stdout=stderr, stderr=stderr) as process:
            assert hub.faults[0].paused.wait(60)
            assert process.pid is not None
            os.kill(process.pid, signal.SIGINT)
            process.join(20)  # the shard would come no sooner than after 30
            said = (tmp_path / "stderr").read_text()
            assert process.exitcode == 130, said
    never.set()
    assert "rerun the command to resume" in said

"""A result onto the hub: whole, in one commit, nothing twice, nothing of the machine, and nothing that is not on
record."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants, snapshot_download
from safetensors.torch import save_file

from hub_server import Fault, Hub
from hub_writing import is_large, sha256
from merging import Merge, make_merge, read_result
from regstream.errors import InputError
from regstream.events import Event, Progressed, Warned
from regstream.hub.errors import HubError
from regstream.output.add_results import add_results
from regstream.output.push import push
from regstream.output.record import PROVENANCE, read_provenance
from regstream.output.record_schema import EvaluationRecord
from regstream.reporting.read_report import read_report

Command = Callable[..., "subprocess.CompletedProcess[str]"]
REPO = "me/merged"
TAKES = "PUT /lfs/upload/.*"


@pytest.fixture
def writable(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A hub, and the token of one who may write to it."""
    hub.writer = "secret"
    monkeypatch.setenv("HF_TOKEN", "secret")
    return hub


@pytest.fixture
def result(local_once: Merge, tmp_path: Path) -> Path:
    """A copy of a finished result."""
    return shutil.copytree(local_once.output, tmp_path / "result")


def stands(hub: Hub, branch: str = "main") -> dict[str, bytes]:
    """The files of the repository."""
    repo = hub.repos[REPO]
    return {name: data for name, data in repo.commits[repo.branches[branch]].items() if name != ".gitattributes"}


def on_record(folder: Path) -> dict[str, bytes]:
    """The files that are to be published."""
    return {name: (folder / name).read_bytes() for name in [*read_provenance(folder)["files"], PROVENANCE]}


@pytest.mark.slow
def test_it_stands_there_whole_in_one_commit_and_loads(writable: Hub, result: Path) -> None:
    sent = push(result, REPO)
    assert stands(writable) == on_record(result)
    assert "regstream.measured.json" not in stands(writable)
    assert set(sent.files) == on_record(result).keys()
    assert sent.commit == writable.repos[REPO].branches["main"]
    assert sent.url == f"{writable.endpoint}/{REPO}/tree/main"
    assert len(writable.asked("POST .*/commit/main")) == 1
    there = Path(snapshot_download(REPO))
    assert read_result(there).keys() == read_result(result).keys()


@pytest.mark.slow
def test_again_sends_nothing(writable: Hub, result: Path) -> None:
    first = push(result, REPO)
    received = dict(writable.received)
    again = push(result, REPO)
    assert (again.files, again.removed, again.commit) == ((), (), first.commit)
    assert {path: n for path, n in writable.received.items() if path.startswith("/lfs/upload")} == {
        path: n for path, n in received.items() if path.startswith("/lfs/upload")
    }
    assert len(writable.asked("POST .*/commit/main")) == 1


@pytest.mark.slow
def test_what_changed_is_sent_alone(writable: Hub, result: Path) -> None:
    push(result, REPO)
    found = EvaluationRecord(metric="held-out loss", higher_is_better=False, datasets=[], rows=[])
    add_results(result, evaluation=found)
    assert push(result, REPO).files == ("README.md", PROVENANCE)
    assert stands(writable) == on_record(result)


@pytest.mark.slow
def test_a_report_is_published_with_its_result(writable: Hub, result: Path) -> None:
    read_report(result).write(result)
    assert {"report.html", "report/changes.png", "report/residuals.png"} <= set(push(result, REPO).files)
    assert stands(writable) == on_record(result)


@pytest.mark.parametrize("token", [None, "other"])
def test_without_access_it_is_one_line(
    writable: Hub, result: Path, token: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    hint = "HF_TOKEN has no access to it" if token else "no token is set"
    with pytest.raises(HubError, match=rf"{REPO}: .*{hint}"):
        push(result, REPO)
    assert writable.asked(TAKES) == []


@pytest.mark.slow
@pytest.mark.parametrize("fault", [{"cut_after": 1000}, {"status": 500}, {"status": 403}])
def test_an_upload_that_is_cut_is_gone_on_with_and_nothing_goes_twice(
    writable: Hub, result: Path, impatient: list[float], fault: dict[str, int]
) -> None:
    shards = sorted(result.glob("*.safetensors"))
    broken = sha256(shards[5].read_bytes())
    writable.faults = [Fault(f"PUT /lfs/upload/{broken}", times=99, **fault)]  # type: ignore[arg-type]
    with pytest.raises(HubError, match=f"{REPO}: {shards[5].name}: the hub"):
        push(result, REPO)
    assert stands(writable) == {}  # nothing shows before all of it is there
    taken = {path: count for path, count in writable.received.items() if path.startswith("/lfs/upload")}
    assert len(taken) == 6
    writable.faults = []
    sent = push(result, REPO)
    assert set(sent.files) == on_record(result).keys()
    assert stands(writable) == on_record(result)
    for shard in shards:
        data = shard.read_bytes()
        if sha256(data) != broken:
            assert writable.received[f"/lfs/upload/{sha256(data)}"] == len(data), shard.name


@pytest.mark.slow
def test_a_moment_of_trouble_is_waited_for(writable: Hub, result: Path, impatient: list[float]) -> None:
    writable.faults = [Fault("PUT /lfs/upload/.*", status=503, times=2)]
    push(result, REPO)
    assert stands(writable) == on_record(result)
    assert impatient == [1, 2]


@pytest.mark.slow
def test_stopped_between_files_it_goes_on(writable: Hub, result: Path) -> None:
    told: list[str] = []

    def stop(event: Event) -> None:
        if isinstance(event, Progressed):
            told.append(event.doing)
            if told.count("model-00003-of-00010.safetensors") == 2:  # found whole, and then sent
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        push(result, REPO, listener=stop)
    taken = len(writable.asked(TAKES))
    assert 0 < taken < len(list(result.glob("*.safetensors")))
    push(result, REPO)
    assert stands(writable) == on_record(result)
    assert len(writable.asked(TAKES)) == len({str(request) for request in writable.asked(TAKES)})


@pytest.mark.slow
def test_weights_of_another_model_go(writable: Hub, result: Path, tmp_path: Path) -> None:
    before = tmp_path / "before"
    before.mkdir()
    for name in ("model.safetensors", "model-00001-of-00099.safetensors", "adapter.safetensors", "notes.txt"):
        (before / name).write_bytes(name.encode())
    writable.add(REPO, before)
    sent = push(result, REPO)
    assert sent.removed == ("model-00001-of-00099.safetensors", "model.safetensors")
    assert stands(writable).keys() == on_record(result).keys() | {"adapter.safetensors", "notes.txt"}
    assert push(result, REPO).removed == ()


@pytest.mark.slow
def test_what_else_is_loaded_from_the_repository_is_named(writable: Hub, result: Path, tmp_path: Path) -> None:
    before = tmp_path / "before"
    (before / "onnx").mkdir(parents=True)
    for name in ("adapter_config.json", "tekken.json", "notes.txt", "onnx/model.onnx"):
        (before / name).write_bytes(name.encode())
    writable.add(REPO, before)
    warned: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Warned):
            warned.append(event.message)

    push(result, REPO, listener=listen)
    [line] = warned
    assert line.startswith(f"{REPO}: contains adapter_config.json, tekken.json, not part of the result")
    assert stands(writable).keys() > on_record(result).keys()


@pytest.mark.slow
def test_private_where_it_is_new_and_refused_where_it_is_public(writable: Hub, result: Path) -> None:
    push(result, REPO, private=True)
    assert writable.repos[REPO].token == "secret"
    push(result, REPO, private=True)
    writable.repos[REPO].token = None
    asked = len(writable.asked(TAKES))
    with pytest.raises(HubError, match="exists and is public"):
        push(result, REPO, private=True)
    assert len(writable.asked(TAKES)) == asked


@pytest.mark.slow
def test_a_branch(writable: Hub, result: Path) -> None:
    sent = push(result, REPO, revision="v2")
    assert sent.url.endswith("/tree/v2")
    assert stands(writable) == {}
    assert stands(writable, "v2") == on_record(result)
    push(result, REPO)
    assert stands(writable) == on_record(result)
    assert len(writable.asked(TAKES)) == len(list(result.glob("*.safetensors")))


@pytest.mark.slow
def test_what_a_gitignore_keeps_out_is_missed(writable: Hub, result: Path, tmp_path: Path) -> None:
    before = tmp_path / "before"
    before.mkdir()
    (before / ".gitignore").write_text("*.json\n")
    writable.add(REPO, before)
    with pytest.raises(HubError, match=r"config\.json is missing after the commit; does a \.gitignore"):
        push(result, REPO)


def test_offline(writable: Hub, result: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE=1 forbids network access"):
        push(result, REPO)


def damage_byte(result: Path) -> str:
    shard = sorted(result.glob("*.safetensors"))[3]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    return f"{shard.name}: damaged"


def remove_file(result: Path) -> str:
    (result / "tokenizer.json").unlink()
    return "tokenizer.json: missing"


def add_shard(result: Path) -> str:
    save_file({}, result / "model.safetensors")
    return "model.safetensors: not part of the result"


def unfinish(result: Path) -> str:
    (result / PROVENANCE).unlink()
    return "is this the output of a finished run"


def rewrite_record(result: Path) -> str:
    record = json.loads((result / PROVENANCE).read_text())
    record["method"] = "average"
    (result / PROVENANCE).write_text(json.dumps(record))
    return "damaged: it does not match its own digest"


@pytest.mark.parametrize("alter", [damage_byte, remove_file, add_shard, unfinish, rewrite_record])
def test_what_is_not_what_was_made_is_refused_before_anything_is_asked(
    writable: Hub, result: Path, alter: Callable[[Path], str]
) -> None:
    line = alter(result)
    with pytest.raises(InputError, match=line):
        push(result, REPO)
    assert writable.requests == []


@pytest.mark.slow
def test_no_place_of_the_machine_is_published(writable: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "secret place"
    folder.mkdir()
    merge = make_merge(folder, layers=1, hidden=8, candidates=2, num_rows=4)
    text = merge.manifest.read_text()
    for name in ("base", "candidate-0", "task0.jsonl"):
        text = text.replace(f'"{name}"', f'"{folder / name}"')
    text = text.replace("[resources]", f"# was {tmp_path}/tried before\n[resources]\nworkdir = '{tmp_path / 'work'}'")
    merge.manifest.write_text(text)
    push(merge.run(), REPO)
    record = json.loads(stands(writable)[PROVENANCE])
    assert 'base = "base"' in record["manifest"]
    assert "workdir = 'work'" in record["manifest"]
    for name, data in stands(writable).items():
        assert str(tmp_path).encode() not in data, name


@pytest.mark.slow
def test_a_home_folder_in_what_came_from_the_base_is_told(
    writable: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge = make_merge(tmp_path, layers=1, hidden=8, candidates=2, merge={"method": "average"})
    settings = merge.folders.base / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"trained_on": f"{Path.home()}/llama"}))
    events: list[Event] = []
    push(merge.run(), REPO, listener=events.append)
    told = [event.message for event in events if isinstance(event, Warned)]
    assert told == ["tokenizer_config.json: contains the path of your home folder, copied from the base's file"]


@pytest.mark.slow
def test_killed_in_the_middle_of_a_file_the_same_command_goes_on(
    writable: Hub, result: Path, environment: dict[str, str], command: Command
) -> None:
    never = threading.Event()
    third = sha256(sorted(result.glob("*.safetensors"))[2].read_bytes())
    writable.faults = [Fault(f"PUT /lfs/upload/{third}", pause=never)]
    process = subprocess.Popen(
        [sys.executable, "-m", "regstream_cli", "push", str(result), REPO],
        env=environment | {"HF_TOKEN": "secret"}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert writable.faults[0].paused.wait(60)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    never.set()
    before = len(writable.asked(TAKES))
    assert before == 3
    done = command("push", result, REPO, HF_TOKEN="secret")
    assert done.returncode == 0, done.stderr
    assert stands(writable) == on_record(result)
    large = [name for name in on_record(result) if is_large(name)]
    assert len(writable.asked(TAKES)) == before + len(large) - 2


@pytest.mark.slow
def test_the_command(writable: Hub, result: Path, command: Command) -> None:
    refused = command("push", result, REPO)
    assert refused.returncode == 4
    assert refused.stderr.count("\n") == 1
    assert f"error: {REPO}: " in refused.stderr
    done = command("push", result, REPO, HF_TOKEN="secret")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{writable.endpoint}/{REPO}/tree/main\n"
    assert f"{len(on_record(result))} files uploaded" in done.stderr
    again = command("push", result, REPO, "--json", HF_TOKEN="secret")
    assert json.loads(again.stdout)["sent"] == []
    assert "up to date at commit" in again.stderr
    assert command("push", result, "merged").returncode == 2

"""`regstream status` tells how far a merge is and touches nothing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Invoke = Callable[..., Result]


def _status(invoke: Invoke, manifest: Path) -> dict[str, Any]:
    result = invoke("status", manifest, "--json")
    assert result.exit_code == 0, result.stderr
    record: dict[str, Any] = json.loads(result.stdout)
    return record


def test_not_begun(invoke: Invoke, fresh: Path) -> None:
    assert invoke("status", fresh).stdout == f"{fresh.parent / 'merged'}: not started\n"
    assert _status(invoke, fresh)["state"] == "not begun"


def test_half_done(invoke: Invoke, half_done: Path) -> None:
    shown = invoke("status", half_done).stdout
    assert ": 3 of 7 steps done in " in shown
    assert " left\n" in shown
    record = _status(invoke, half_done)
    assert (record["state"], record["done"], record["total"]) == ("unfinished", 3, 7)
    assert [step["name"] for step in record["steps"]] == ["stem", "block 0", "block 1"]
    blocks = [step["seconds"] for step in record["steps"][1:]]
    assert record["seconds_left"] == pytest.approx(4 * sum(blocks) / len(blocks))
    assert all(0 < step["peak_bytes"] <= step["projected_bytes"] for step in record["steps"])


def test_finished(invoke: Invoke, finished: Path) -> None:
    assert ": finished in " in invoke("status", finished).stdout
    record = _status(invoke, finished)
    assert (record["state"], record["done"], record["total"]) == ("finished", 7, 7)
    assert record["changed"] == []


def test_it_needs_no_inputs_and_changes_nothing(invoke: Invoke, half_done: Path) -> None:
    (half_done.parent / "candidate-0" / "model.safetensors").unlink()
    before = {path: path.stat().st_mtime_ns for path in half_done.parent.rglob("*")}
    assert _status(invoke, half_done)["done"] == 3
    assert {path: path.stat().st_mtime_ns for path in half_done.parent.rglob("*")} == before


def test_a_result_without_its_measurements_is_finished_still(invoke: Invoke, finished: Path) -> None:
    (finished.parent / "merged" / "regstream.measured.json").unlink()
    assert invoke("status", finished).stdout == f"{finished.parent / 'merged'}: finished\n"


@pytest.mark.parametrize("state", ["half_done", "finished"])
def test_a_manifest_that_was_changed_since(invoke: Invoke, request: pytest.FixtureRequest, state: str) -> None:
    manifest: Path = request.getfixturevalue(state)
    manifest.write_text(manifest.read_text().replace("[merge]", "[merge]\nalpha = 0.5"))
    assert "the manifest has changed since: alpha: 0.95 before, 0.5 now" in invoke("status", manifest).stdout


def test_of_many_changes_the_first_are_shown_and_the_rest_is_counted(invoke: Invoke, finished: Path) -> None:
    changed = ["merge.alpha=0.5", "merge.dtype=float16", "merge.seed=3", "merge.shard_size=1GiB"]
    changed += ["merge.others.embeddings=average", "merge.others.head=average"]
    shown = invoke("status", finished, *(part for setting in changed for part in ("--set", setting))).stdout
    assert "since: alpha: 0.95 before, 0.5 now; " in shown
    assert shown.endswith("; and 2 more, which --json has\n")


def test_a_damaged_journal_is_5(invoke: Invoke, half_done: Path) -> None:
    journal = half_done.parent / "merged" / ".regstream" / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([*lines[:2], lines[2].replace("seconds", "sekunden"), *lines[3:]]))
    result = invoke("status", half_done)
    assert result.exit_code == 5
    assert "line 3 of 4: damaged" in result.stderr


def test_an_output_that_was_removed_is_not_begun(invoke: Invoke, half_done: Path) -> None:
    shutil.rmtree(half_done.parent / "merged")
    assert _status(invoke, half_done)["state"] == "not begun"

"""`regstream plan` shows the plan's own numbers."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from added_tokens import add_tokens
from checkpoints import make_family
from regstream.planning.plan import Plan
from regstream.units import format_bytes

Invoke = Callable[..., Result]


def test_neighbours_that_take_the_same_share_a_row(invoke: Invoke, fresh: Path) -> None:
    text = invoke("plan", fresh).stdout
    lines = text[text.index("step ") :].splitlines()
    assert lines[0].split() == ["step", "tensors", "regressed", "reads", "writes", "memory"]
    assert lines[2].startswith("stem ")
    assert lines[3].startswith("block 0 to 3, each ")
    assert lines[4].startswith("block 4 ")  # feeds no other block: writes less
    assert lines[5].startswith("head ")
    assert lines[-1].startswith("needs ")
    assert lines[-1].endswith(": fits")


def test_the_widest_step_is_the_sum_of_its_terms(invoke: Invoke, fresh: Path) -> None:
    plan = json.loads(invoke("plan", fresh, "--json").stdout)
    widest = next(step for step in plan["steps"] if step["name"] == plan["widest"])
    assert widest["projected_bytes"] == plan["runtime_bytes"] + sum(widest["terms"]["host"].values())
    assert plan["write_bytes"] == sum(step["write_bytes"] for step in plan["steps"])
    assert plan["read_bytes"] == sum(step["read_bytes"] for step in plan["steps"])
    assert plan["fits"]
    assert plan["refusal"] is None
    assert [step["num_regressed"] for step in plan["steps"]] == [0, 7, 7, 7, 7, 7, 0]


def test_what_does_not_fit_is_shown_all_the_same(invoke: Invoke, fresh: Path) -> None:
    fresh.write_text(fresh.read_text().replace("[resources]", '[resources]\nhost_memory = "64MiB"'))
    table = invoke("plan", fresh)
    assert table.stdout.splitlines()[-1].endswith(": does not fit")
    assert f"budget {format_bytes(64 << 20)}" in table.stdout
    record = invoke("plan", fresh, "--json")
    assert (table.exit_code, record.exit_code) == (3, 3)
    assert record.stderr == f"regstream: error: {json.loads(record.stdout)['refusal']}\n"
    assert not json.loads(record.stdout)["fits"]


def test_passes_are_shown_with_what_makes_them(invoke: Invoke, fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = fresh.read_text()
    fresh.write_text(re.sub('method = ".*"', 'method = "regfilter"', text))
    in_turn = invoke("plan", fresh).stdout
    assert "a block's input groups are processed in 4 passes, one after another, as its statistics need: " in in_turn
    assert "to fit" not in in_turn
    fresh.write_text(text)
    assert "passes" not in invoke("plan", fresh).stdout
    monkeypatch.setattr(Plan, "budgets", {"host": 0})  # which makes the most passes
    assert "a block's input groups are processed in 4 passes, to fit: " in invoke("plan", fresh).stdout


def test_settings_that_vary_are_shown_by_block(invoke: Invoke, fresh: Path) -> None:
    text = fresh.read_text()
    assert "setting" not in invoke("plan", fresh).stdout
    rules = '[[rules]]\nparameters = "*.mlp.*"\nblocks = "4"\nalpha = 0.1\n\n'
    fresh.write_text(re.sub('method = ".*"', 'method = "regmean++"\nalpha = [0.9, 0.9, 0.5]', text) + f"\n{rules}")
    lines = invoke("plan", fresh).stdout.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("setting "))
    assert [line.split() for line in (lines[first], *lines[first + 2 : first + 5])] == [
        ["setting", "alpha"],
        ["block", "0", "to", "2,", "each", "0.9"],
        ["block", "3", "0.7"],
        ["block", "4", "0.5", "(4),", "0.1", "(3)"],
    ]
    assert "in parentheses, how many" in lines[first + 5]
    [setting] = json.loads(invoke("plan", fresh, "--json").stdout)["varying_settings"]
    assert (setting["key"], setting["candidate"]) == ("alpha", None)
    assert setting["steps"]["block 4"] == {"values": [0.5, 0.1], "parameters": [4, 3]}


def test_tokens_that_the_result_adds_are_named(invoke: Invoke, tmp_path: Path) -> None:
    made = make_family(tmp_path, "llama", candidates=2)
    add_tokens(made.candidates[1], ["<think>"], seed=0)
    manifest = tmp_path / "merge.toml"
    candidates = (f"--candidate=task{index}={folder}" for index, folder in enumerate(made.candidates))
    assert invoke("init", f"--base={made.base}", *candidates, "--method=ties", "-o", manifest).exit_code == 0
    assert "adds 1 token to the base's: <think>\n" in invoke("plan", manifest, "--set=merge.tokenizer=union").stdout


def test_work_without_rows_is_shown(invoke: Invoke, fresh: Path) -> None:
    fresh.write_text(re.sub('method = ".*"', 'method = "swudi"', fresh.read_text()))
    assert re.search(r"total: [\d.]+ [kMG]FLOP, reads ", invoke("plan", fresh).stdout)


def test_a_plan_writes_nothing_and_leaves_a_run_alone(invoke: Invoke, half_done: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in half_done.parent.rglob("*")}
    assert invoke("plan", half_done).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in half_done.parent.rglob("*")} == before

"""--set changes the manifest of one command, and a manifest may come on standard input."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from regstream_cli.app import cli

Invoke = Callable[..., Result]


def test_a_setting_decides_the_plan(invoke: Invoke, fresh: Path) -> None:
    result = invoke("plan", fresh, "--json", "--set", "merge.alpha=0.5", "--set", "candidates.task1.weight=2")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["options"] == {"alpha": 0.5}


@pytest.mark.slow
def test_the_record_and_the_card_have_the_manifest_in_effect(invoke: Invoke, fresh: Path) -> None:
    before = fresh.read_text()
    result = invoke("run", fresh, "--set", "merge.alpha=0.5", "--set", "merge.output=other")
    assert result.exit_code == 0, result.stderr
    assert fresh.read_text() == before
    output = fresh.parent / "other"
    assert "alpha = 0.5" in json.loads((output / "regstream.json").read_text())["manifest"]
    assert "alpha = 0.5" in (output / "README.md").read_text()
    shown = f"regstream evaluate {fresh} --set merge.alpha=0.5 --set merge.output=other"
    assert result.stderr.splitlines()[-1].endswith(shown)
    assert "finished" in invoke("status", fresh, "--set", "merge.output=other", "--set", "merge.alpha=0.5").stdout


def test_another_setting_does_not_resume_a_run(invoke: Invoke, half_done: Path) -> None:
    result = invoke("run", half_done, "--set", "merge.alpha=0.5", "--set", "merge.seed=3")
    assert result.exit_code == 5
    head, *changes = result.stderr.splitlines()
    assert head.endswith("undo each change, or --restart starts over")
    assert "regstream: error: manifest alpha: 0.95 before, 0.5 now; set it back" in changes
    assert "regstream: error: manifest seed: 0 before, 3 now; set it back" in changes


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("alpha=1", "--set alpha=1: a key needs its table: merge.alpha"),
        ("weight=1", "--set weight=1: a key needs its table: rules.0.weight or candidates.NAME.weight"),
        ("merge.alpha", "--set merge.alpha: expected KEY=VALUE with a dotted key, such as merge.alpha=0.9"),
        ("merge.alhpa=1", '[merge] alhpa: unknown key; did you mean "alpha"?'),
        ("merge.alpha=many", '[merge] alpha: expected a number from 0 to 1, found "many"'),
        ("merge.alpha.x=1", "--set merge.alpha.x: merge.alpha is no table"),
        ("candidates.task9.weight=1", "there are task0, task1; did you mean"),
        ("candidates.9.weight=1", 'no table of the name "9"; there are task0, task1'),
    ],
)
def test_a_wrong_setting_is_named(invoke: Invoke, fresh: Path, setting: str, message: str) -> None:
    if "alpha.x" in setting:
        fresh.write_text(fresh.read_text().replace("[merge]", "[merge]\nalpha = 0.9"))
    result = invoke("plan", fresh, "--set", setting)
    assert result.exit_code == 2
    [line] = result.stderr.splitlines()
    assert message in line


def test_tuning_refuses_what_it_would_write_beside_another_method(invoke: Invoke, fresh: Path) -> None:
    result = invoke("tune", fresh, "--set", "merge.method=regmean")
    assert result.exit_code == 2
    assert "change method in" in result.stderr


def test_a_manifest_on_standard_input_has_paths_of_the_current_folder(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fresh.parent)
    result = CliRunner().invoke(cli, ["plan", "-", "--json"], input=fresh.read_text())
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["output"] == str(fresh.parent / "merged")
    wrong = CliRunner().invoke(cli, ["plan", "-"], input="[merge\n")
    assert wrong.stderr.startswith("regstream: error: standard input:1:")

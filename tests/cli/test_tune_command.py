"""`regstream tune` writes the best setting into the manifest; method "auto" tunes before it merges."""

import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from crash.resuming import MEASURED
from parametrize import slow
from regstream import api
from regstream.errors import Interrupted
from regstream.events import Event, StepStarted
from regstream.manifest.read_manifest import read_manifest
from tuning import make_planted

Invoke = Callable[..., Result]
COMMENT = "# the method of the paper"


@pytest.fixture(scope="module")
def planted_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    merge = make_planted(tmp_path_factory.mktemp("planted"), "regmean++", "alpha", 0.5, num_rows=10)
    text = merge.manifest.read_text()
    merge.manifest.write_text(
        "# My merge.\n\n" + text.replace('method = "regmean++"', f'method = "regmean++"  {COMMENT}')
    )
    return merge.manifest


@pytest.fixture
def planted(planted_once: Path, tmp_path: Path) -> Path:
    """A manifest with comments, whose best alpha is 0.5."""
    shutil.copytree(planted_once.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / "manifest.toml"


def as_auto(manifest: Path) -> Path:
    manifest.write_text(manifest.read_text().replace('"regmean++"', '"auto"'))
    return manifest


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MEASURED}


def test_the_table_and_the_manifest(invoke: Invoke, planted: Path) -> None:
    before = planted.read_text()
    result = invoke("tune", planted)
    assert result.exit_code == 0, result.stderr
    heading, _, *rows = [line.split() for line in result.stdout.splitlines() if line.strip()]
    assert heading == ["round", "rows", "held", "out", "settings", "task0", "task1", "mean", "time"]
    assert [row[5] for row in rows[:-1]] == ["0.1", "0.5", "0.8", "0.9", "0.95", "1.0"]
    assert {row[1] for row in rows[:-1]} == {"8"}
    assert min(rows[:-1], key=lambda row: float(row[8]))[5] == "0.5"
    assert rows[-1][0] == "evaluation"
    assert re.search(
        r"wrote alpha = 0.5; took .*; merging with every setting and all rows instead would have taken about",
        result.stderr,
    )
    assert result.stderr.splitlines()[-1] == f"regstream: `regstream run {planted}` merges with them"
    text = planted.read_text()
    assert text.replace("alpha = 0.5\n", "") == before
    assert COMMENT in text
    assert not (planted.parent / "merged").exists()
    assert invoke("plan", planted).exit_code == 0


@pytest.mark.slow
def test_json(invoke: Invoke, planted: Path) -> None:
    record = json.loads(invoke("tune", planted, "--json").stdout)
    assert record["settings"] == {"alpha": 0.5}
    [tuned] = record["rounds"]
    assert tuned["rows"] == {"task0": 8, "task1": 8}
    for trial in tuned["trials"]:
        assert trial["mean"] == pytest.approx(sum(trial["scores"].values()) / 2)
        assert trial["failure"] is None
    assert 0 < sum(trial["seconds"] for trial in tuned["trials"]) < tuned["seconds"] == record["seconds"]


def test_a_dry_run_shows_settings_and_cost_and_writes_nothing(invoke: Invoke, planted: Path) -> None:
    before = {path: path.read_bytes() for path in planted.parent.rglob("*") if path.is_file()}
    result = invoke("tune", planted, "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert "alpha = 0.1 | alpha = 0.5 | alpha = 0.8 | alpha = 0.9 | alpha = 0.95 | alpha = 1.0" in result.stdout
    assert "task0: scored on 24 rows of its [candidates.evaluation]" in result.stdout
    assert re.search(r"takes about .*\nmerging with every setting and all rows instead would take about", result.stdout)
    record = json.loads(invoke("tune", planted, "--dry-run", "--json").stdout)
    assert (len(record["settings"]), [planned["settings"] for planned in record["rounds"]]) == (6, [6])
    assert undocumented(record) == set()
    assert {path: path.read_bytes() for path in planted.parent.rglob("*") if path.is_file()} == before


def test_the_manifests_own_settings_and_fixed_options_are_labelled(invoke: Invoke, planted: Path) -> None:
    planted.write_text(
        planted.read_text().replace('method = "regmean++"', 'method = "regfilter"\nridge = 0.03\nstatistics = "own"')
    )
    shown = invoke("tune", planted, "--dry-run")
    assert (
        'regfilter with ridge = 0.03 (the manifest\'s) | scale = 0.5, filter = "relative_ridge", ridge = 0.005 | '
        in (shown.stdout)
    )
    assert 'the manifest\'s, in every merge: statistics = "own"' in shown.stdout
    record = json.loads(invoke("tune", planted, "--dry-run", "--json").stdout)
    assert (record["manifest_settings"], record["fixed_options"]) == ({"ridge": 0.03}, {"statistics": "own"})


def with_method(planted: Path, method: str) -> Path:
    planted.write_text(planted.read_text().replace('"regmean++"', f'"{method}"'))
    return planted


def test_one_round_with_all_rows_is_not_compared_with_itself(invoke: Invoke, planted: Path) -> None:
    result = invoke("tune", with_method(planted, "task_arithmetic"), "--dry-run")
    assert "takes about" in result.stdout
    assert "instead" not in result.stdout
    assert json.loads(invoke("tune", planted, "--dry-run", "--json").stdout)["sweep_seconds"] is None


def test_a_scale_of_a_candidate_is_named_as_not_tuned(invoke: Invoke, planted: Path) -> None:
    text = with_method(planted, "task_arithmetic").read_text()
    planted.write_text(text.replace('name = "task1"', 'name = "task1"\nscale = 0.4'))
    line = "the own scale of task1 is not tuned and stays; tuned is the scale in [merge], of the other candidates"
    result = invoke("tune", planted, "--dry-run", "--json")
    assert line in result.stderr
    assert any(line in warning for warning in json.loads(result.stdout)["warnings"])
    planted.write_text(planted.read_text().replace('name = "task0"', 'name = "task0"\nscale = 0.4'))
    refused = invoke("tune", planted)
    assert refused.exit_code == 2
    assert "all 5 settings describe the same merge: every candidate has its own scale" in refused.stderr


def test_few_held_out_rows_are_named_with_their_number(invoke: Invoke, planted: Path) -> None:
    assert "few held-out rows" not in invoke("tune", planted, "--dry-run").stderr
    planted.write_text(planted.read_text().replace("[candidates.evaluation]", "[candidates.evaluation]\nrows = 15", 1))
    result = invoke("tune", planted, "--dry-run")
    assert "warning: tuning scores settings on few held-out rows (task0 15); with fewer than 16" in result.stderr


def test_rows_that_are_held_out_are_not_called_without_effect(invoke: Invoke, planted: Path) -> None:
    with_method(planted, "task_arithmetic")
    assert "calibration of" in invoke("tune", planted, "--dry-run").stderr  # there are others to score on
    planted.write_text(re.sub(r"\[candidates.evaluation\]\npath = .*\nfield = .*\n", "", planted.read_text()))
    result = invoke("tune", planted, "--dry-run")
    assert "task0: scored on 10 rows split off its calibration set" in result.stdout
    assert "no effect" not in result.stderr


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (('method = "regmean++"', 'method = "average"'), 2, 'the method "average" has no settings to tune'),
        (("[candidates.evaluation]", "[candidates.evaluation]\nrows = 0"), 2, "rows: expected a whole number above 0"),
        (("[resources]", '[resources]\nhost_memory = "100MiB"'), 3, "host_memory is 100 MiB"),
        (("held-out-0.jsonl", "candidate-0"), 4, "candidate-0: expected a file of rows"),
    ],
)
def test_bad_input_is_refused_before_any_merge(
    invoke: Invoke, planted: Path, change: tuple[str, str], code: int, message: str
) -> None:
    text = planted.read_text().replace(*change)
    planted.write_text(text)
    result = invoke("tune", planted)
    assert (result.exit_code, result.stdout) == (code, ""), result.stderr
    assert message in result.stderr
    assert planted.read_text() == text
    assert not (planted.parent / "merged").exists()


def test_too_few_rows_to_hold_some_out_are_4(invoke: Invoke, planted: Path) -> None:
    planted.write_text(re.sub(r"\[candidates.evaluation\]\npath = .*\nfield = .*\n", "", planted.read_text()))
    result = invoke("tune", planted)
    assert result.exit_code == 4
    assert 'candidate "task0": calibration: 10 rows are too few to hold 4 out and calibrate with 8' in result.stderr


def test_a_manifest_that_cannot_be_written_is_refused_first(invoke: Invoke, planted: Path) -> None:
    pipe = planted.with_name("pipe")
    pipe.symlink_to("/dev/null")
    assert invoke("tune", pipe).exit_code == 2
    planted.chmod(0o444)
    if os.geteuid() != 0:  # who may write anywhere
        assert "read-only" in invoke("tune", planted).stderr


def undocumented(record: dict[str, Any]) -> set[str]:
    """The fields of a record that cli/README.md does not have."""
    text = (Path(__file__).parents[2] / "cli" / "README.md").read_text()
    table = text[text.index("`regstream tune --json`") : text.index("## Commands")]
    fields = {*record, *record["rounds"][0], *record["rounds"][0].get("trials", [{}])[0]}
    return fields - set(re.findall(r"`([a-z_]+)`", table))


def test_auto_becomes_the_method_whose_settings_are_written(invoke: Invoke, planted: Path) -> None:
    before = as_auto(planted).read_text()
    shown = invoke("tune", planted, "--dry-run")
    line = 'the manifest\'s method is "auto": method = "regmean++" is written in its place, with the best settings'
    assert line in shown.stdout
    result = invoke("tune", planted, "--json")
    record = json.loads(result.stdout)
    assert (record["method"], record["writes_method"], record["settings"]) == ("regmean++", True, {"alpha": 0.5})
    assert undocumented(record) == set()
    assert 'wrote method = "regmean++", alpha = 0.5; took' in result.stderr
    assert planted.read_text().replace("alpha = 0.5\n", "") == before.replace('"auto"', '"regmean++"')
    assert 'method "auto"' not in invoke("plan", planted).stdout


@pytest.mark.parametrize("begun", [slow("finished"), "unfinished"])
def test_the_advice_is_right_where_there_is_a_result_or_a_run_of_other_settings(
    invoke: Invoke, planted: Path, begun: str
) -> None:
    before = with_method(planted, "task_arithmetic").read_text()
    planted.write_text(before.replace("[merge]", "[merge]\nscale = 7.0"))

    def stop(event: Event) -> None:
        if begun == "unfinished" and isinstance(event, StepStarted) and event.name == "block 0":
            raise Interrupted("here")

    with suppress(Interrupted):
        api.merge(api.plan(read_manifest(planted)), listener=stop)
    planted.write_text(before)
    *_, advice = invoke("tune", planted).stderr.splitlines()
    what = {"finished": "the result", "unfinished": "an unfinished run"}[begun]
    assert f"{planted.parent / 'merged'} holds {what} of other settings (" in advice
    assert "scale: 7.0 before, " in advice
    assert advice.endswith(f"; `regstream run --restart {planted}` replaces it")
    refused = invoke("run", planted)
    assert refused.exit_code == 5
    assert "--restart" in refused.stderr
    assert invoke("run", "--restart", planted).exit_code == 0
    *_, advice = invoke("tune", planted).stderr.splitlines()
    assert advice.endswith(f"merged holds the result of these settings; `regstream run {planted}` checks it")
    assert "already finished" in invoke("run", planted).stderr


def test_status_shows_the_round_of_a_tuning_and_its_end(invoke: Invoke, planted: Path) -> None:
    with_method(planted, "task_arithmetic")
    seen: list[str] = []

    def stop(event: Event) -> None:
        if isinstance(event, StepStarted):
            seen.append(invoke("status", planted).stdout)
            if event.name == "stem of the evaluation":
                raise Interrupted("here")

    with pytest.raises(Interrupted):
        api.tune(api.plan(read_manifest(planted)), listener=stop)
    since = r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    assert re.search(rf": not started\ntuning: in round 1 of 1 {since}, 0 of 5 settings merged\n", seen[0])
    assert re.search(rf"tuning: in round 1 of 1 {since}, 5 of 5 settings merged\n", invoke("status", planted).stdout)
    record = json.loads(invoke("status", planted, "--json").stdout)["tuning"]
    assert datetime.fromisoformat(record.pop("since")) <= datetime.now(UTC)
    assert record == {"num_rounds": 1, "num_finished": 0, "num_settings": 5, "num_merged": 5}
    api.tune(api.plan(read_manifest(planted)))
    assert re.search(rf"tuning: all 1 rounds done {since}", invoke("status", planted).stdout)
    result = invoke("tune", planted)  # resumed: what it took says nothing of a pace
    assert re.search(r"wrote scale = [\d.]+; took [^;]* in all\n", result.stderr)
    assert json.loads(invoke("status", planted, "--json").stdout)["tuning"] is None


def test_auto_equals_a_run_with_the_settings_that_win(invoke: Invoke, planted: Path, tmp_path: Path) -> None:
    text = as_auto(planted).read_text()
    shown = invoke("plan", planted)
    assert 'method "auto": the run first tunes regmean++: alpha = 0.1 | ' in shown.stdout
    assert "not started" in invoke("status", planted).stdout
    result = invoke("run", planted)
    assert result.exit_code == 0, result.stderr
    assert 'method "auto": merging by regmean++ with alpha = 0.5' in result.stderr
    assert planted.read_text() == text
    output = planted.parent / "merged"
    record = json.loads((output / "regstream.json").read_text())
    assert (record["method"], record["identity"]["manifest"]["alpha"]) == ("regmean++", 0.5)
    assert "with regmean++ (alpha = 0.5, as tuned)" in (output / "README.md").read_text()
    found = contents(output)
    explicit = planted.with_name("explicit.toml")
    explicit.write_text(text.replace('"auto"', '"regmean++"').replace('output = "merged"', 'output = "x"\nalpha = 0.5'))
    assert invoke("run", explicit).exit_code == 0
    others = {"README.md", "regstream.json"}  # hold the manifest
    expected = contents(planted.parent / "x")
    assert found.keys() == expected.keys()
    assert {name for name in found if found[name] != expected[name]} == others


def test_status_shows_no_tuning_once_auto_merges(invoke: Invoke, planted: Path) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, StepStarted) and event.name == "block 0":
            raise Interrupted("here")

    with pytest.raises(Interrupted):
        api.merge(api.plan(read_manifest(as_auto(planted))), listener=stop)
    record = json.loads(invoke("status", planted, "--json").stdout)
    assert (record["state"], record["next_step"], record["tuning"]) == ("unfinished", "block 0", None)


@pytest.fixture
def auto_finished(invoke: Invoke, planted: Path) -> Path:
    assert invoke("run", as_auto(planted)).exit_code == 0
    return planted


@pytest.mark.slow
def test_a_rerun_uses_the_choice_of_the_record(invoke: Invoke, auto_finished: Path) -> None:
    again = invoke("run", auto_finished)
    assert again.exit_code == 0
    assert again.stderr.splitlines()[-1].endswith("already finished; nothing to do")
    assert "regmean++ with alpha = 0.5, as the run has chosen" in invoke("plan", auto_finished).stdout
    status = invoke("status", auto_finished).stdout
    assert "finished in" in status
    assert "changed" not in status
    evaluated = invoke("evaluate", auto_finished, "--json")
    assert [row["model"] for row in json.loads(evaluated.stdout)["rows"]][-1] == "regmean++"
    assert invoke("verify", auto_finished.parent / "merged").exit_code == 0
    restarted = invoke("run", auto_finished, "--restart")
    assert "of the evaluation" in restarted.stderr
    assert restarted.exit_code == 0


@pytest.mark.slow
def test_auto_does_not_take_over_the_result_of_a_merge_that_was_not_tuned(invoke: Invoke, planted: Path) -> None:
    assert invoke("run", planted).exit_code == 0
    result = invoke("run", as_auto(planted))
    assert result.exit_code == 5
    assert "error: manifest method: regmean++ before, auto now; set it back" in result.stderr


def test_options_beside_auto_are_refused(invoke: Invoke, planted: Path) -> None:
    manifest = as_auto(planted)
    manifest.write_text(manifest.read_text().replace("[merge]", "[merge]\nalpha = 0.5"))
    result = invoke("run", manifest)
    assert result.exit_code == 2
    assert '[merge] alpha: only method "regmean", "regmean++" or "regfilter" has this key' in result.stderr


def test_auto_without_held_out_rows_is_refused_by_plan_too(invoke: Invoke, planted: Path) -> None:
    text = as_auto(planted).read_text()
    planted.write_text(re.sub(r"\[candidates.evaluation\]\npath = .*\nfield = .*\n", "", text))
    for command in ("plan", "run"):
        result = invoke(command, planted)
        assert result.exit_code == 4
        assert "10 rows are too few to hold 4 out" in result.stderr

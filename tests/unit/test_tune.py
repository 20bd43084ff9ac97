"""Tuning finds the setting that was planted, on rows that do not calibrate, and refuses what cannot be tuned."""

import gc
import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

import checkpoints
from merging import Merge, make_merge
from parametrize import slow
from regstream import api
from regstream.data.loading import TokenRows
from regstream.errors import BudgetError, InputError, ManifestError, SolveError
from regstream.evaluation.evaluation import evaluate
from regstream.events import Event, RunStarted, StepCommitted, StepStarted, Warned
from regstream.methods.regmean import RegMean
from regstream.planning.planning import make_plan, replan
from regstream.tuning.held_out_split import split_rows
from regstream.tuning.tuning_plan import TuningPlan
from regstream.tuning.tuning_warnings import tuning_warnings
from tuning import make_planted, means, without_held_out


@pytest.fixture(scope="module")
def planted_once(tmp_path_factory: pytest.TempPathFactory) -> Merge:
    return make_planted(tmp_path_factory.mktemp("planted"), "regmean++", "alpha", 0.5)


@pytest.fixture
def planted(planted_once: Merge, tmp_path: Path) -> Merge:
    """A merge by RegMean++ whose best alpha is 0.5, and that was not begun."""
    shutil.copytree(planted_once.manifest.parent, tmp_path, dirs_exist_ok=True)
    return Merge(tmp_path / "manifest.toml", planted_once.folders, planted_once.rows)


def test_the_planted_setting_wins_by_successive_halving(planted: Merge) -> None:
    tuning = api.tune(planted.plan())
    assert tuning.settings == {"alpha": 0.5}
    assert [(len(scored.trials), list(scored.num_rows)) for scored in tuning.rounds] == [(6, [8, 8]), (2, [20, 20])]
    ranked = [trial.settings["alpha"] for trial in sorted(tuning.rounds[0].trials, key=lambda trial: trial.mean or 0)]
    assert {trial.settings["alpha"] for trial in tuning.rounds[1].trials} == set(ranked[:2])
    assert tuning.datasets == ("task0", "task1")
    assert all(trial.seconds > 0 for scored in tuning.rounds for trial in scored.trials)


@pytest.mark.parametrize("scale", [0.5, slow(0.3)])
def test_a_method_without_rows_takes_one_round(tmp_path: Path, scale: float) -> None:
    tuning = api.tune(make_planted(tmp_path, "task_arithmetic", "scale", scale).plan())
    assert tuning.settings == {"scale": scale}
    assert [(len(scored.trials), list(scored.num_rows)) for scored in tuning.rounds] == [(5, [0, 0])]


@pytest.mark.slow
def test_scores_are_those_of_merges_and_evaluations_one_by_one(planted: Merge) -> None:
    found = means(api.tune(planted.plan()))[1]
    plan = TuningPlan.of(planted.plan())
    for settings, mean in found:
        half = replan(plan.merge, plan.split.calibrating_with(Fraction(1, 2)).with_settings(settings))
        api.merge(half, restart=True)
        evaluation = evaluate(half, only=["regmean++"])
        assert evaluation.average(evaluation.rows[0]) == mean


@pytest.mark.slow
def test_the_winner_is_the_best_of_a_sweep(planted: Merge) -> None:
    swept = {}
    for alpha in (0.1, 0.5, 0.8, 0.9, 0.95, 1.0):
        plan = make_plan(planted.read().with_settings({"alpha": alpha}))
        api.merge(plan, restart=True)
        evaluation = evaluate(plan, only=["regmean++"])
        swept[alpha] = evaluation.average(evaluation.rows[0])
    shutil.rmtree(planted.output)
    assert swept[api.tune(planted.plan()).settings["alpha"]] == min(filter(None, swept.values()))


def test_the_manifests_own_setting_is_among_those_that_are_tried(planted: Merge) -> None:
    planted.manifest.write_text(planted.manifest.read_text().replace("[merge]", "[merge]\nalpha = 0.55"))
    assert {"alpha": 0.55} in TuningPlan.of(planted.plan()).settings


@pytest.mark.slow
def test_only_state_is_left_and_a_rerun_has_the_scores_at_once(planted: Merge) -> None:
    first = api.tune(planted.plan())
    left = {str(path.relative_to(planted.output)) for path in planted.output.rglob("*") if path.is_file()}
    assert left == {f".regstream/tune/{name}" for name in ("journal.jsonl", "lock", "regstream-folder.json")}
    events: list[Event] = []
    assert api.tune(planted.plan(), listener=events.append) == first
    assert not events
    planted.run()
    assert not (planted.output / ".regstream").exists()


def test_merges_take_turns_and_each_round_is_one_run_with_one_evaluation(planted: Merge) -> None:
    events: list[Event] = []
    api.tune(planted.plan(), listener=events.append)
    started = [event for event in events if isinstance(event, RunStarted)]
    assert [(event.done, event.total) for event in started] == [(0, 18), (0, 3), (0, 6), (0, 3)]
    committed = [(event.index, event.name) for event in events if isinstance(event, StepCommitted)]
    names = [f"{step} of alpha = {alpha}" for step in ("stem", "block 0", "head") for alpha in (0.1, 0.5, 0.8, 0.9)]
    assert [index for index, _ in committed] == [*range(18), *range(3), *range(6), *range(3)]
    assert [name for _, name in committed[:4]] == names[:4]
    assert [name for _, name in committed[6:10]] == names[4:8]
    assert [name for _, name in committed[18:21]] == [
        f"{step} of the evaluation" for step in ("stem", "block 0", "head")
    ]


@pytest.mark.slow
def test_merges_that_wait_for_their_turn_hold_no_buffers(planted: Merge) -> None:
    held: dict[str, list[int]] = {}

    def listen(event: Event) -> None:
        if isinstance(event, StepStarted) and event.name.startswith("block 0 of alpha"):
            gc.collect()
            tensors = (thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor))
            held.setdefault("bytes", []).append(sum(tensor.nbytes for tensor in tensors))

    api.tune(planted.plan(), listener=listen)
    block = sum(parameter.numel() for parameter in checkpoints.load(planted.folders.base).parameters()) * 4
    assert max(held["bytes"][:6]) - held["bytes"][0] < block / 10


def rows_of(rows: object) -> set[tuple[int, ...]]:
    assert isinstance(rows, TokenRows)
    return {tuple(row.tolist()) for index in range(len(rows.batches)) for row in rows.token_ids(index)}


def calibrating(plan: TuningPlan, share: Fraction) -> Iterator[set[tuple[int, ...]]]:
    """The rows of each candidate that calibrate."""
    manifest = plan.split.calibrating_with(share)
    yield from (rows_of(candidate.rows) for candidate in replan(plan.merge, manifest).candidates)


def test_rows_that_are_split_off_never_calibrate(planted: Merge) -> None:
    plan = TuningPlan.of(without_held_out(planted).plan())
    held_out = [rows_of(rows) for rows in plan.metric.datasets.values()]
    assert [len(rows) for rows in held_out] == [8, 8]
    before: list[set[tuple[int, ...]]] = [set(), set()]
    for share, count in ((Fraction(1, 8), 8), (Fraction(1, 2), 16), (Fraction(1), 32)):
        for index, rows in enumerate(calibrating(plan, share)):
            assert len(rows) == count
            assert not rows & held_out[index]
            assert before[index] <= rows
            before[index] = rows
    again = TuningPlan.of(planted.plan())
    assert [rows_of(rows) for rows in again.metric.datasets.values()] == held_out
    planted.manifest.write_text(planted.manifest.read_text().replace("[merge]", "[merge]\nseed = 1"))
    other = TuningPlan.of(planted.plan())
    assert [rows_of(rows) for rows in other.metric.datasets.values()] != held_out


@pytest.mark.slow
def test_rows_that_are_split_off_score_the_settings(planted: Merge) -> None:
    tuning = api.tune(without_held_out(planted).plan())
    assert [list(scored.num_rows) for scored in tuning.rounds] == [[8, 8], [16, 16]]
    assert tuning.datasets == ("task0", "task1")


def test_the_split_is_of_the_rows_that_the_merge_samples(planted: Merge) -> None:
    merge = without_held_out(planted, lambda text: text.replace("batch_rows", "rows = 30\nbatch_rows"))
    plan = TuningPlan.of(merge.plan())
    for index, rows in enumerate(calibrating(plan, Fraction(1))):
        whole = rows_of(plan.merge.candidates[index].rows)
        assert whole == rows | rows_of(plan.metric.datasets[f"task{index}"])
        assert (len(whole), len(rows)) == (30, 24)


@pytest.mark.slow
def test_rows_of_a_method_that_reads_none_are_all_held_out(planted: Merge) -> None:
    change = "regmean++", "task_arithmetic"
    plan = TuningPlan.of(without_held_out(planted, lambda text: text.replace(*change)).plan())
    assert plan.num_held_out == {"task0": 40, "task1": 40}
    assert split_rows(plan.merge).pools == (range(0), range(0))


def held_out_of(merge: Merge, rows: list[str]) -> Merge:
    """The same merge, with these lines as the held-out rows of its first candidate."""
    (merge.manifest.parent / "held-out-0.jsonl").write_text("".join(rows))
    return merge


def calibration_lines(merge: Merge) -> list[str]:
    return (merge.manifest.parent / "task0.jsonl").read_text().splitlines(keepends=True)


def test_a_copy_of_the_calibration_rows_is_refused_as_held_out_rows(planted: Merge) -> None:
    held_out_of(planted, calibration_lines(planted))
    with pytest.raises(InputError, match='"task0": all 40 held-out rows are also calibration rows, on which'):
        TuningPlan.of(planted.plan())


def test_some_held_out_rows_that_calibrate_are_named_with_their_number(planted: Merge) -> None:
    own = (planted.manifest.parent / "held-out-0.jsonl").read_text().splitlines(keepends=True)
    held_out_of(planted, own + calibration_lines(planted)[:3])
    [line] = tuning_warnings(TuningPlan.of(planted.plan()))
    assert line.startswith('candidate "task0": 3 of 27 held-out rows are also calibration rows, so that scores favor')


def test_rows_that_are_split_off_are_shared_only_where_the_set_repeats_them(planted: Merge) -> None:
    without_held_out(planted)
    assert TuningPlan.of(planted.plan()).num_shared == {}
    rows = planted.manifest.parent / "task0.jsonl"
    rows.write_text(rows.read_text() * 2)
    assert set(TuningPlan.of(planted.plan()).num_shared) == {"task0"}


def edited(merge: Merge, before: str, after: str) -> Merge:
    text = merge.manifest.read_text()
    assert before in text
    merge.manifest.write_text(text.replace(before, after))
    return merge


@pytest.mark.parametrize("method", ["regmean++", "auto"])
def test_settings_that_rules_give_to_every_parameter_are_not_tuned(planted: Merge, method: str) -> None:
    text = planted.manifest.read_text().replace('"regmean++"', f'"{method}"')
    planted.manifest.write_text(text + '\n[[rules]]\nparameters = "*"\nalpha = [0.2, 0.9]\n')
    with pytest.raises(ManifestError, match="settings describe the same merge: alpha has no effect, since rules give"):
        TuningPlan.of(planted.plan())
    planted.manifest.write_text(text + '\n[[rules]]\nparameters = "*.mlp.*"\nalpha = 0.2\n')
    assert len(TuningPlan.of(planted.plan()).settings) == 6


def test_a_method_without_settings_is_refused(planted: Merge) -> None:
    with pytest.raises(
        ManifestError, match='"average" has no settings to tune; those of slerp, task_arithmetic, dare_linear, regmean,'
    ):
        api.tune(edited(planted, '"regmean++"', '"average"').plan())


def test_too_few_rows_are_refused_with_their_number(planted: Merge) -> None:
    without_held_out(planted, lambda text: text.replace("batch_rows", "rows = 11\nbatch_rows"))
    with pytest.raises(InputError, match='"task0": calibration: 11 rows are too few to hold 4 out and'):
        api.tune(planted.plan())


def test_a_candidate_without_any_rows_is_refused(planted: Merge) -> None:
    text = without_held_out(planted).manifest.read_text().replace('"regmean++"', '"task_arithmetic"')
    lines = text.splitlines()
    start = lines.index("[candidates.calibration]")
    planted.manifest.write_text("\n".join(lines[:start] + lines[start + 4 :]))
    with pytest.raises(ManifestError, match='candidate "task0": tuning needs held-out rows; give it a'):
        api.tune(planted.plan())


def test_images_without_labels_are_refused(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, "clip", layers=1, hidden=8, candidates=2, num_rows=16)
    with pytest.raises(ManifestError, match='candidate "task0": only a language model can be scored on rows of its'):
        api.tune(merge.plan())


def test_results_that_do_not_fit_on_disk_are_refused_beforehand(
    planted: Merge, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = planted.plan().disk_bytes
    plan = TuningPlan.of(planted.plan())
    free = shutil.disk_usage(planted.manifest.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free._replace(free=one))
    with pytest.raises(BudgetError, match=r"results .*of 6 settings.* are missing; free some space"):
        plan.validate()
    assert not planted.output.exists()


def test_a_disk_budget_is_of_all_results_together(planted: Merge) -> None:
    size = planted.plan().disk_bytes
    planted.manifest.write_text(planted.manifest.read_text() + f'disk = "{size} B"\n')
    with pytest.raises(BudgetError, match=r"results of 6 settings, .*resources\] disk budget is .*; raise it"):
        api.tune(planted.plan())


def test_a_setting_whose_merge_fails_is_left_out_and_named(planted: Merge, monkeypatch: pytest.MonkeyPatch) -> None:
    statistics = RegMean.statistics

    def refused(mean: object) -> Any:
        raise SolveError("no trustworthy solution")

    def failing(self: RegMean, *arguments: Any) -> Any:
        made: Any = statistics(self, *arguments)
        if self.options.alpha == 0.5:
            made.solve = refused
        return made

    plan = planted.plan()
    monkeypatch.setattr(RegMean, "statistics", failing)
    events: list[Event] = []
    tuning = api.tune(plan, listener=events.append)
    assert tuning.settings["alpha"] in (0.1, 0.8)
    failure = tuning.rounds[0].trials[1].failure
    assert "block 0" in failure
    assert [e.message for e in events if isinstance(e, Warned)] == [f"alpha = 0.5: left out: {failure}"]
    assert list((planted.output / ".regstream" / "tune").glob("result-*")) == []

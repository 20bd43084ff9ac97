"""A tuning that is killed goes on with what is left of it, to the same scores; so does a run that tunes first."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from crash.faults import count_places, in_child, kill, of_every_kind, with_fault
from disk import no_waiting_for_the_disk
from merging import Merge
from parametrize import slow
from regstream import api
from regstream.events import Event, SettingsChosen, StepCommitted, StepStarted, Warned
from regstream.tuning.tuning import Tuning
from tuning import make_planted, means

__all__ = ["no_waiting_for_the_disk"]

Strike = Callable[[Event], None]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Merge:
    return make_planted(tmp_path_factory.mktemp("planted"), "regmean++", "alpha", 0.5)


@pytest.fixture(scope="module")
def undisturbed(planted: Merge) -> Tuning:
    """What a tuning finds that nothing interrupts."""
    tuning = api.tune(planted.plan())
    shutil.rmtree(planted.output)
    return tuning


def tune(merge: Merge, strike: Strike = lambda event: None) -> Tuning:
    return api.tune(merge.plan(), listener=strike)


def killing(step: str) -> Strike:
    """Kills the process as a step begins."""

    def strike(event: Event) -> None:
        if isinstance(event, StepStarted) and event.name == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return strike


@pytest.mark.parametrize("step", ["block 0 of alpha = 0.5", slow("head of the evaluation")])
def test_killed_it_repeats_one_step_at_most(planted: Merge, undisturbed: Tuning, step: str) -> None:
    committed: list[str] = []
    tune(planted, lambda event: committed.append(event.name) if isinstance(event, StepCommitted) else None)
    shutil.rmtree(planted.output)
    log = planted.manifest.parent / "log"
    log.write_text("")

    def record_and(strike: Strike) -> Strike:
        def listen(event: Event) -> None:
            strike(event)
            if isinstance(event, StepCommitted):
                with log.open("a") as stream:
                    stream.write(f"{event.name}\n")

        return listen

    killed = in_child(lambda: tune(planted, record_and(killing(step))))
    assert killed == -signal.SIGKILL
    tuning = tune(planted, record_and(lambda event: None))
    assert means(tuning) == means(undisturbed)
    assert tuning.settings == undisturbed.settings
    assert sorted(log.read_text().splitlines()) == sorted(committed)  # no committed step twice
    shutil.rmtree(planted.output)


@pytest.mark.slow
def test_kills_at_operations_on_the_disk(planted: Merge, undisturbed: Tuning) -> None:
    places = count_places(lambda: tune(planted), planted.output)
    shutil.rmtree(planted.output)
    # What kills do to the merges within is tested of merges themselves; each tuning is several of them.
    kinds = of_every_kind(places, seed=0, fsync=False)
    own = [index for index in kinds if places[index].count("/.regstream") == 1]
    assert len(own) > 20
    for index in own[:: len(own) // 4]:
        in_child(lambda index=index: with_fault(lambda: tune(planted), planted.output, index, kill))  # type: ignore[misc]
        assert means(tune(planted)) == means(undisturbed), places[index]
        left = {path.name for path in (planted.output / ".regstream" / "tune").iterdir()}
        assert left == {"journal.jsonl", "lock", "regstream-folder.json"}, places[index]
        shutil.rmtree(planted.output)


@pytest.mark.parametrize("change", ["rows", slow("settings")])
def test_a_change_starts_over_and_is_named(planted: Merge, tmp_path: Path, change: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(planted.manifest.parent, folder, ignore=shutil.ignore_patterns("merged"))
    merge = Merge(folder / "manifest.toml", planted.folders, planted.rows)
    assert in_child(lambda: tune(merge, killing("block 0 of alpha = 0.8"))) == -signal.SIGKILL
    if change == "rows":
        rows = folder / "held-out-0.jsonl"
        rows.write_text(rows.read_text().replace("[", "[7, ", 1))
    else:
        merge.manifest.write_text(merge.manifest.read_text().replace("[merge]", "[merge]\nalpha = 0.55"))
    events: list[Event] = []
    tuning = tune(merge, events.append)
    [warning] = [e.message for e in events if isinstance(e, Warned)]
    assert "tune: the tuning starts over: changed since it began: " in warning
    assert {"rows": "held out task0", "settings": "settings [0] alpha"}[change] in warning
    assert len(tuning.rounds[0].trials) == (7 if change == "settings" else 6)


@pytest.mark.parametrize("step", ["block 0 of alpha = 0.5", slow("block 0")])
def test_a_run_that_tunes_first_goes_on_with_what_it_has_chosen(planted: Merge, tmp_path: Path, step: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(planted.manifest.parent, folder, ignore=shutil.ignore_patterns("merged"))
    merge = Merge(folder / "manifest.toml", planted.folders, planted.rows)
    merge.manifest.write_text(merge.manifest.read_text().replace('"regmean++"', '"auto"'))
    killed = in_child(lambda: api.merge(api.plan(merge.read()), listener=killing(step)))
    assert killed == -signal.SIGKILL
    events: list[Event] = []
    api.merge(api.plan(merge.read()), listener=events.append)
    chosen = [event for event in events if isinstance(event, SettingsChosen)]
    assert chosen == ([] if step == "block 0" else [SettingsChosen(method="regmean++", settings="alpha = 0.5")])
    assert not (merge.output / ".regstream").exists()

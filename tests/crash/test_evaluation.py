"""An evaluation that is killed, interrupted or finds its state damaged goes on, to the same scores."""

import errno
import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.torch import save_file

import checkpoints
from crash.faults import Fault, count_places, in_child, kill, of_every_kind, refuse, with_fault
from disk import no_waiting_for_the_disk
from merging import Merge, make_merge
from parametrize import slow
from regstream.evaluation.evaluation import evaluate
from regstream.evaluation.representation_bias import representation_bias
from regstream.events import Event, Progressed, RunStarted, StepStarted, Warned
from regstream_cli.app import cli
from regstream_cli.progress_lines import ProgressLines

__all__ = ["no_waiting_for_the_disk"]

MODELS = ("base", "task0", "task1", "mean")
STEPS = ["stem", "block 0", "block 1", "head"]
TOWER_STEPS = [f"text tower {step}" for step in STEPS]
Found = Callable[..., object]


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Merge:
    """Two candidates with held-out rows."""
    table = '[candidates.evaluation]\npath = "task{}.jsonl"\nfield = "input_ids"\nbatch_rows = 3'
    return make_merge(tmp_path_factory.mktemp("text"), layers=2, candidates=2, num_rows=4, candidate=table.format)


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Merge:
    """Whole CLIPs with held-out images, classified by the names of their classes."""
    folder = tmp_path_factory.mktemp("images")
    table = '[candidates.evaluation]\npath = "held.safetensors"\nclasses = "classes.toml"'
    merge = make_merge(folder, "clip-full", layers=2, candidates=2, num_rows=4, candidate=lambda index: table)
    names = [f"harbour {index}" for index in range(5)]
    (folder / "classes.toml").write_text(f'templates = ["a photo of {{}}."]\nclasses = {names}\n'.replace("'", '"'))
    pixels = checkpoints.random_images(6, seed=0)
    save_file(
        {"pixel_values": pixels, "labels": (pixels.sum((1, 2, 3)) * 7).long().abs() % 5}, folder / "held.safetensors"
    )
    return merge


def scores(merge: Merge, listener: Callable[[Event], None] = lambda event: None) -> object:
    return evaluate(merge.plan(), only=MODELS, cross=True, listener=listener)


def few_scores(merge: Merge, listener: Callable[[Event], None] = lambda event: None) -> object:
    return evaluate(merge.plan(), only=("task0", "mean"), listener=listener)


def biases(merge: Merge, listener: Callable[[Event], None] = lambda event: None) -> object:
    return representation_bias(merge.plan(), only=["mean"], listener=listener)


def killed_in(merge: Merge, step: str, work: Found = scores) -> int:
    """A process that is killed halfway through a step."""
    begun: list[StepStarted] = []

    def strike(event: Event) -> None:
        if isinstance(event, StepStarted):
            begun.append(event)
        elif isinstance(event, Progressed) and begun[-1].name == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return in_child(lambda: work(merge, strike))


def resumed(merge: Merge, work: Found = scores) -> tuple[object, list[str], list[str]]:
    """What the same command finds, the steps that it begins, and its warnings."""
    events: list[Event] = []
    found = work(merge, events.append)
    begun = [event.name for event in events if isinstance(event, StepStarted)]
    [started] = [event for event in events if isinstance(event, RunStarted)]
    assert started.total - started.done == len(begun)
    assert not (merge.output / ".regstream").exists()
    return found, begun, [event.message for event in events if isinstance(event, Warned)]


@pytest.mark.parametrize("index", [1, slow(3)])
def test_killed_in_a_step_it_resumes_with_that_step(language: Merge, index: int) -> None:
    undisturbed = scores(language)
    assert killed_in(language, STEPS[index]) == -signal.SIGKILL
    found, begun, warnings = resumed(language)
    assert (found, begun, warnings) == (undisturbed, STEPS[index:], [])


@pytest.mark.slow
@pytest.mark.parametrize("index", [1, 3, 6])
def test_so_does_one_with_heads_from_a_text_tower(vision: Merge, index: int) -> None:
    undisturbed, steps = scores(vision), [*TOWER_STEPS, *STEPS]
    assert killed_in(vision, steps[index]) == -signal.SIGKILL
    found, begun, _ = resumed(vision)
    assert (found, begun) == (undisturbed, steps[index:])


@pytest.mark.slow
def test_so_does_the_bias(language: Merge) -> None:
    undisturbed = biases(language)
    assert killed_in(language, "block 1", biases) == -signal.SIGKILL
    assert resumed(language, biases)[:2] == (undisturbed, ["block 1"])


@pytest.mark.slow
def test_a_fault_at_every_kind_of_operation_on_the_disk(language: Merge) -> None:
    """A kill at one kind, a full disk at the next; of scores of few models; how biases are kept differs in nothing."""
    undisturbed = few_scores(language)
    places = count_places(lambda: few_scores(language), language.output)
    chosen = of_every_kind(places, seed=0, fsync=True)
    assert len(chosen) > 20
    for number, index in enumerate(chosen):
        fault: Fault = refuse(errno.ENOSPC) if number % 2 or places[index].startswith("fsync ") else kill
        work = partial(with_fault, partial(few_scores, language), language.output, index, fault)
        in_child(work)
        found, begun, _ = resumed(language, few_scores)
        assert found == undisturbed, places[index]
        assert len(begun) <= len(STEPS)


def test_another_evaluation_starts_anew_and_removes_the_state(language: Merge) -> None:
    undisturbed = scores(language)
    assert killed_in(language, "block 1") == -signal.SIGKILL
    rows = language.manifest.parent / "task0.jsonl"
    before = rows.read_text()
    rows.write_text(before.replace("[", "[7, ", 1))
    try:
        found, begun, _ = resumed(language)
    finally:
        rows.write_text(before)
    assert begun == STEPS
    assert found != undisturbed
    assert resumed(language) == (undisturbed, STEPS, [])


@pytest.mark.parametrize("kind", ["hidden states", slow("journal")])
def test_damaged_state_is_made_again(language: Merge, kind: str) -> None:
    undisturbed = scores(language)
    assert killed_in(language, "block 1") == -signal.SIGKILL
    [folder] = (language.output / ".regstream").iterdir()
    pattern = "2/1/task0/0/c/0/0" if kind == "hidden states" else "journal.jsonl"
    [damaged] = folder.glob(pattern)
    data = bytearray(damaged.read_bytes())
    data[len(data) // 3] ^= 1
    damaged.write_bytes(data)
    found, begun, warnings = resumed(language)
    assert found == undisturbed
    if kind == "hidden states":
        assert begun == STEPS[2:]
        assert "recomputing what enters block 1 from the stem on" in warnings[0]
    else:
        assert begun == STEPS
        assert "damaged" in warnings[0]


def signalled(manifest: Path) -> None:
    """The command, which gets Ctrl-C in its first block."""
    noticed, notice, line = threading.Event(), ProgressLines.show_message, ProgressLines.__call__

    def notice_and_tell(lines: ProgressLines, text: str) -> None:
        notice(lines, text)
        noticed.set()

    def signal_and_call(lines: ProgressLines, event: Event) -> None:
        if isinstance(event, StepStarted) and event.name == "block 0":
            os.kill(os.getpid(), signal.SIGINT)
            assert noticed.wait(60)
        line(lines, event)

    setattr(ProgressLines, "show_message", notice_and_tell)  # noqa: B010  in a process of its own
    setattr(ProgressLines, "__call__", signal_and_call)  # noqa: B010
    result = CliRunner().invoke(cli, ["evaluate", str(manifest), "--only", "mean"])
    assert "stopped in block 0, 1 of 4 steps are committed; rerun the command to resume" in result.stderr, result.stderr
    raise SystemExit(result.exit_code)


def test_interrupted_it_says_how_to_resume(language: Merge) -> None:
    undisturbed = CliRunner().invoke(cli, ["evaluate", str(language.manifest), "--only", "mean"])
    assert in_child(lambda: signalled(language.manifest)) == 130
    again = CliRunner().invoke(cli, ["evaluate", str(language.manifest), "--only", "mean"])
    assert "resuming after 1 of 4 steps" in again.stderr
    assert (again.exit_code, again.stdout) == (0, undisturbed.stdout)

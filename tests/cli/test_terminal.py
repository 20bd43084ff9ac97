"""On a terminal: bars that are drawn and gone again, no colours where none are wanted, none wider than the screen."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import processes
from parametrize import slow
from regstream.events import Progressed, RankProgress, RanksProgressed, RunStarted, StepStarted
from regstream_cli.progress_bars import ProgressBars
from regstream_cli.progress_state import ProgressState

_COLOUR = re.compile(r"\x1b\[[\d;]*(?:3[0-7]|9[0-7]|38;[\d;]*)m")
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


def _on_terminal(environment: dict[str, str], *arguments: str) -> tuple[str, int]:
    process, terminal = pty.fork()
    if process == 0:
        os._exit(processes.exit_code(list(arguments), environment))
    shown = bytearray()
    try:
        while data := os.read(terminal, 4096):
            shown += data
    except OSError:  # the other end is closed
        pass
    os.close(terminal)
    return shown.decode(), os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def test_a_run_shows_a_bar_without_colours_where_none_are_wanted(environment: dict[str, str], half_done: Path) -> None:
    variables = environment | {"TERM": "xterm-256color", "COLUMNS": "80", "NO_COLOR": "1"}
    shown, code = _on_terminal(variables, "run", str(half_done))
    assert code == 0, shown
    assert "━" in shown
    assert re.search(r"[3-6]/7", shown)
    assert "memory" in shown
    assert shown.rindex(_SHOW_CURSOR) > shown.rindex(_HIDE_CURSOR)
    assert not _COLOUR.search(shown)
    following, path = shown[shown.rindex(_SHOW_CURSOR) :].splitlines()[-2:]
    assert "next    regstream evaluate" in following
    assert path == str(half_done.parent / "merged")


def test_what_is_watched_leaves_its_table_on_the_screen(environment: dict[str, str], finished: Path) -> None:
    variables = environment | {"TERM": "xterm-256color", "COLUMNS": "120", "NO_COLOR": "1"}
    shown, code = _on_terminal(variables, "status", str(finished), "--watch")
    assert code == 0, shown
    left = shown[shown.rindex(_SHOW_CURSOR) :].splitlines()
    assert [line for line in left if line.startswith("block ")] != []
    assert "finished in" in left[-1]


def _first_frame(bars: ProgressBars, console: Console) -> str:
    """What the bars show at first, before they are drawn again or removed."""
    with console.capture() as captured, bars:
        pass
    return captured.get().removeprefix(_HIDE_CURSOR).partition("\r\x1b[2K")[0]


@pytest.mark.parametrize("width", [120, 60, 30])
def test_the_display_stays_within_the_screen(width: int) -> None:
    state = ProgressState()
    console = Console(width=width, force_terminal=True, no_color=True, highlight=False)
    bars = ProgressBars(state, console)
    state(RunStarted(done=3, total=34, output="out"))
    state(StepStarted(index=3, name="block 2", work=30))
    state(Progressed(doing="a-candidate-with-quite-a-name: statistics", amount=7))
    bars.show_message("stopping at the next safe point; interrupt again to stop immediately")
    lines = re.sub(r"\x1b\[[\d;]*m", "", _first_frame(bars, console)).splitlines()
    assert len(lines) <= 6
    assert max(map(len, lines)) <= width
    assert "3/34" in lines[0]


def test_each_other_rank_has_a_bar() -> None:
    state = ProgressState()
    console = Console(width=80, force_terminal=True, no_color=True, highlight=False)
    state(RunStarted(done=3, total=34, output="out"))
    state(StepStarted(index=3, name="block 2", work=30))
    ranks = [("block 2", "math: statistics"), ("block 1", "code: hidden states")]
    reports = (
        RankProgress(rank=rank, host="host-b", step=step, fraction=0.5, doing=doing)
        for rank, (step, doing) in enumerate(ranks, start=1)
    )
    state(RanksProgressed(ranks=tuple(reports)))
    lines = _first_frame(ProgressBars(state, console), console).splitlines()
    shown = [line for line in lines if line.startswith("rank ")]
    assert [line.split()[1] for line in shown] == ["1", "2"]
    assert shown[0].rstrip().endswith("math: statistics")
    assert shown[1].rstrip().endswith("block 1: code: hidden states")


def test_colours_where_they_can_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    state = ProgressState()
    state(StepStarted(index=0, name="stem", work=2))
    state(Progressed(doing="math: stem"))
    console = Console(width=80, force_terminal=True, color_system="standard")
    assert _COLOUR.search(_first_frame(ProgressBars(state, console), console))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("plan",),
        ("run", "--json"),
        *map(slow, [("plan", "--json"), ("run",), ("status",)]),
    ],
    ids=" ".join,
)
def test_a_full_standard_output_is_3_and_named(
    environment: dict[str, str], half_done: Path, arguments: tuple[str, ...]
) -> None:
    command, *options = arguments
    asked = [command] if command == "--help" else [command, str(half_done), *options]
    with Path("/dev/full").open("wb") as full:
        done = processes.run([*asked], environment, stdout=full)
    assert done.returncode == 3, done.stderr
    assert "standard output: No space left on device" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [("--help",), ("plan",), ("run", "--json"), *map(slow, [("run", "--help"), ("status",)])], ids=" ".join
)
def test_where_nobody_reads_standard_output_is_130(
    environment: dict[str, str], half_done: Path, arguments: tuple[str, ...]
) -> None:
    command, *options = arguments
    asked = [*arguments] if "--help" in arguments else [command, str(half_done), *options]
    reader, writer = os.pipe()
    os.close(reader)
    done = processes.run([*asked], environment, stdout=writer)
    os.close(writer)
    assert done.returncode == 130, done.stderr
    assert done.stderr.splitlines()[-1] == "regstream: interrupted: the reader of standard output has closed it"


@pytest.mark.slow
def test_a_closed_standard_output_is_named_and_no_file_takes_its_place(
    environment: dict[str, str], half_done: Path
) -> None:
    shell = f"exec {sys.executable} -m regstream_cli run {half_done} >&- <&-"
    done = subprocess.run(
        ["sh", "-c", shell], env=environment, stderr=subprocess.PIPE, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "warning: standard output is closed; data written to it is lost" in done.stderr.splitlines()[0]

"""At its end a run says where the result is, how well it fits each candidate, what it took, and what comes next."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest

from merge_records import set_numbers
from regstream.events import RunFinished
from regstream.manifest.read_manifest import read_manifest
from regstream.output.lost_changes import lost_changes
from regstream.planning.planning import make_plan
from regstream_cli.manifest_source import ManifestSource
from regstream_cli.run_summary import summary_lines


def summary(manifest: Path, **fields: bool) -> dict[str, str]:
    """The lines by their first word, all of which are aligned."""
    output = manifest.parent / "merged"
    finished = RunFinished(output=str(output), seconds=182.0, peak_bytes=3 << 30, **fields)
    lines = list(summary_lines(ManifestSource(manifest), read_manifest(manifest), finished))
    assert all(re.match(r"\w+ +\S", line) and line[:6].strip() == line.split()[0] and line[8] != " " for line in lines)
    return {line[:6].strip(): line[8:] for line in lines}


def test_five_lines(finished: Path) -> None:
    set_numbers(finished.parent / "merged")
    lines = summary(finished)
    assert list(lines) == ["result", "fit", "worst", "cost", "next"]
    assert lines["result"] == str(finished.parent / "merged")
    # The mean's residuals are half as large again.
    assert lines["fit"] == "residual on calibration rows: task0 66.7 % of the mean's, task1 66.7 %"
    assert lines["worst"].startswith("block 4, mlp.down_proj: the merged weights miss what task1 computes by 27.3 %")
    assert re.fullmatch(r"3 min 02 s, peak memory 3 GiB of \d+ MiB projected", lines["cost"])
    assert lines["next"] == f"regstream evaluate {finished}"


def test_without_residuals_what_was_kept_is_said_instead(finished: Path) -> None:
    set_numbers(finished.parent / "merged", {"task1": 0.25}, residuals=False)
    lines = summary(finished)
    assert list(lines) == ["result", "kept", "worst", "cost", "next"]
    assert lines["kept"] == "of the candidates' changes: task0 50 %, task1 25 %"
    assert lines["worst"] == "task1 changed the base by 10 % of its norm in block 0; the merged model kept 25 % of it"


def test_a_record_without_numbers_has_the_other_lines(finished: Path) -> None:
    set_numbers(finished.parent / "merged", {"task0": None, "task1": None}, residuals=False)
    (finished.parent / "merged" / "regstream.measured.json").unlink()
    lines = summary(finished)
    assert "fit" not in lines
    assert lines["cost"] == "3 min 02 s, peak memory 3 GiB"


def test_the_next_command_can_be_pasted_into_a_shell(finished: Path) -> None:
    manifest = finished.with_name("my merge.toml")
    manifest.write_text(finished.read_text())
    assert shlex.split(summary(manifest)["next"]) == ["regstream", "evaluate", str(manifest)]
    table = re.compile(r"(?ms)^\[candidates.evaluation\].*?(?=^\[)")
    manifest.write_text(table.sub("", finished.read_text()))
    assert summary(manifest)["next"] == f"regstream report {finished.parent / 'merged'}"


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ({}, []),
        ({"task1": None}, ['candidate "task1" equals the base in every parameter: it adds nothing to the merge']),
        ({"task0": 0.04}, ['candidate "task0": its change is lost: the merged model kept 4 % of it']),
    ],
    ids=["none", "unchanged", "lost"],
)
def test_changes_that_are_lost_are_named(finished: Path, kept: Mapping[str, float | None], expected: list[str]) -> None:
    set_numbers(finished.parent / "merged", kept)
    assert list(lost_changes(make_plan(read_manifest(finished)))) == expected


def test_candidates_that_lost_the_same_parameters_share_a_line(finished: Path) -> None:
    set_numbers(finished.parent / "merged", {"task0": 0.0, "task1": 0.0})
    found = [line for line in lost_changes(make_plan(read_manifest(finished))) if "their changes of" in line]
    assert len(found) == 1
    assert found[0].startswith('candidates "task0" (100 % of its whole change), "task1" (100 %)')

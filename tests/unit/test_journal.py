"""The record of committed steps: what is committed stays so, and nothing else counts."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import pytest

from regstream.errors import ResumeError
from regstream.linalg.solve_report import SolveReport
from regstream.planning.step import Step
from regstream.runtime.commit import committed_step
from regstream.runtime.diagnostics import StepDiagnostics
from regstream.runtime.step import Artifacts
from regstream.storage import journal_lines as lines
from regstream.storage.identity_differences import differences
from regstream.storage.journal import CommittedStep, Journal
from regstream.storage.shards import ShardDigest

SAMPLES, EVERY_BYTE = "digest of samples", "digest of every byte"
IDENTITY: dict[str, Any] = {"manifest": {"alpha": 0.95, "rules": []}, "base": {"config.json": "full:1"}}
PLACES: list[tuple[Literal["stem", "block", "head"], int | None]] = [
    ("stem", None), ("block", 0), ("block", 1), ("head", None),
]  # fmt: skip
STEPS = tuple(
    Step(index=index, kind=kind, block=block, parameters=(), shard=f"shard {index}", writes_hidden_states=index < 2)
    for index, (kind, block) in enumerate(PLACES)
)
NAMES = [step.name for step in STEPS]
SOLVE = SolveReport(
    group="mlp input", in_features=4, linears=("up",), num_tokens=9, route="cholesky", condition=7.0, residual=1e-7,
    ridge=0.0, dead_inputs=0,
)  # fmt: skip
DIAGNOSTICS = StepDiagnostics(
    residuals=({"group": "mlp input", "candidates": {"math": {"merged": 0.25, "mean": 0.5}}},),
    changes=(
        {"parameter": "up", "rule": "regress", "base_norm": 3.0, "candidates": {"math": {"norm": 0.0, "kept": None}}},
    ),
)


COST = {
    "seconds": 0.123, "peak_bytes": 5, "projected_bytes": 6, "device_peak_bytes": 0, "device_projected_bytes": 0,
    "work": {"solves": {"seconds": 0.5, "num_bytes": 7}},
}  # fmt: skip


def commit(journal: Journal, step: Step) -> CommittedStep:
    artifacts = Artifacts(
        written=ShardDigest(num_bytes=8, sha256="abc", sampled="def"),
        solves=(SOLVE,) * (step.block is not None),
        diagnostics=DIAGNOSTICS,
        work={},
    )
    committed = committed_step(step, artifacts, [COST])
    journal.commit(committed)
    return committed


def as_json(committed: Sequence[CommittedStep]) -> str:
    return json.dumps([asdict(step) for step in committed], sort_keys=True)


def remaining(journal: Journal) -> list[int]:
    return [step.index for step in STEPS[len(journal.committed) :]]


def test_a_new_journal_announces_its_steps(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, IDENTITY, NAMES)
    assert remaining(journal) == [0, 1, 2, 3]
    announced = Journal.read_header(tmp_path)
    assert announced is not None
    assert announced["identity"] == IDENTITY
    assert announced["steps"] == ["stem", "block 0", "block 1", "head"]
    assert Journal.read_committed(tmp_path) == []


def test_where_there_is_no_journal_nothing_is_announced_and_nothing_made(tmp_path: Path) -> None:
    assert Journal.read_header(tmp_path) is None
    assert Journal.read_committed(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_what_was_committed_is_found_again(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, IDENTITY, NAMES)
    committed = [commit(journal, step) for step in STEPS[:2]]
    again = Journal.open(tmp_path, IDENTITY, NAMES)
    assert again.committed == Journal.read_committed(tmp_path)
    assert journal.committed == committed
    # As JSON, which is what becomes of them: a journal that was read holds lists where a new one holds tuples.
    assert as_json(again.committed) == as_json(committed)
    assert remaining(again) == [2, 3]
    assert [len(step.solves) for step in again.committed] == [0, 1]
    assert [step.generation for step in committed] == [0, 1]
    assert commit(again, STEPS[2]).generation is None


def test_a_torn_end_is_cut_off_and_written_over(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, IDENTITY, NAMES)
    commit(journal, STEPS[0])
    whole = journal.path.read_bytes()
    commit(journal, STEPS[1])
    journal.path.write_bytes(journal.path.read_bytes()[: len(whole) + 20])
    assert len(Journal.read_committed(tmp_path)) == 1
    assert journal.path.stat().st_size == len(whole) + 20  # who only looks changes nothing
    again = Journal.open(tmp_path, IDENTITY, NAMES)
    assert journal.path.read_bytes() == whole
    commit(again, STEPS[1])
    assert len(Journal.read_committed(tmp_path)) == 2


def test_a_journal_whose_first_line_was_torn_begins_anew(tmp_path: Path) -> None:
    path = Journal.open(tmp_path, IDENTITY, NAMES).path
    path.write_bytes(path.read_bytes()[:30])
    assert remaining(Journal.open(tmp_path, {"other": 1}, NAMES)) == [0, 1, 2, 3]


def test_a_changed_input_is_refused_by_its_place_and_both_values(tmp_path: Path) -> None:
    Journal.open(tmp_path, IDENTITY, NAMES)
    changed = {**IDENTITY, "manifest": {"alpha": 0.5, "rules": []}}
    with pytest.raises(ResumeError, match=r"starts over\nmanifest alpha: 0.95 before, 0.5 now; set it back") as caught:
        Journal.open(tmp_path, changed, NAMES)
    assert str(caught.value).startswith(f"{tmp_path}: cannot resume")


def test_of_many_changes_the_method_and_other_settings_come_first_and_the_rest_is_counted(tmp_path: Path) -> None:
    shards = {f"shard {number}": str(number) for number in range(20)}
    Journal.open(tmp_path, {"base": shards, "manifest": {"alpha": 0.95, "method": "regmean"}}, NAMES)
    with pytest.raises(ResumeError) as caught:
        Journal.open(tmp_path, {"base": {}, "manifest": {"alpha": 0.5, "method": "ties"}}, NAMES)
    _, method, alpha, first, *_, last = caught.value.problems
    assert method == "manifest method: regmean before, ties now; set it back"
    assert alpha.startswith("manifest alpha")
    assert first.startswith("base shard 0")
    assert last == "and 12 more differences"


def test_another_version_of_the_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(lines.encode({"format": 99, "identity": IDENTITY, "steps": []}))
    for open_it in (lambda: Journal.open(tmp_path, IDENTITY, NAMES), lambda: Journal.read_header(tmp_path)):
        with pytest.raises(ResumeError, match="written by another version"):
            open_it()


@pytest.mark.parametrize("record", [{}, {"index": 1}, {"solves": [], "surprise": 1}])
def test_a_record_that_is_no_step_is_refused_by_its_line(tmp_path: Path, record: lines.Record) -> None:
    journal = Journal.open(tmp_path, IDENTITY, NAMES)
    with journal.path.open("ab") as stream:
        stream.write(lines.encode(record))
    for look in (lambda: Journal.open(tmp_path, IDENTITY, NAMES), lambda: Journal.read_committed(tmp_path)):
        with pytest.raises(ResumeError, match="line 2: not a valid step"):
            look()


def test_what_a_watcher_is_told_is_what_was_measured(tmp_path: Path) -> None:
    committed = commit(Journal.open(tmp_path, IDENTITY, NAMES), STEPS[0])
    assert committed.event_fields == {
        "index": 0, "name": "stem", "seconds": 0.123, "peak_bytes": 5, "projected_bytes": 6,
        "device_peak_bytes": 0, "device_projected_bytes": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({}, {}, []),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 2, "b": 1}}, []),
        ({"a": 1}, {"a": 2}, ["a: 1 before, 2 now"]),
        ({"a": 1}, {}, ["a: 1 before, absent now"]),
        ({}, {"a": {"b": 1}}, ["a b: absent before, 1 now"]),
        ({"a": {"b": 1}}, {"a": 1}, ["a: absent before, 1 now", "a b: 1 before, absent now"]),
        ({"a": ["x", "y"]}, {"a": ["y", "x"]}, ["a [0]: x before, y now", "a [1]: y before, x now"]),
        ({"a": ["x"]}, {"a": ["x", "y"]}, ["a [1]: absent before, y now"]),
        ({"a": "f" * 60}, {"a": "e" * 60}, [f"a: {'f' * 21}... before, {'e' * 21}... now"]),
        ({"a": True}, {"a": False}, ["a: true before, false now"]),
        ({"a": {"fast": "1"}}, {"a": {"fast": "1", "full": "2"}}, []),
        ({"a": {"fast": "1", "full": "2"}}, {"a": {"fast": "1"}}, []),
        ({"a": {"fast": "1", "full": "2"}}, {"a": {"fast": "1", "full": "3"}}, [f"a {EVERY_BYTE}: 2 before, 3 now"]),
        ({"a": {"fast": "1", "full": "2"}}, {"a": {"fast": "4", "full": "3"}}, [f"a {SAMPLES}: 1 before, 4 now"]),
        ({"a": {"fast": "1", "full": "2"}}, {"a": {"fast": "3"}}, [f"a {SAMPLES}: 1 before, 3 now"]),
        (
            {"a": {"full": "2"}},
            {"a": {"hub": "2"}},
            [f"a {EVERY_BYTE}: 2 before, absent now", "a hub: absent before, 2 now"],
        ),
    ],
)
def test_every_difference_is_named(before: dict[str, Any], now: dict[str, Any], expected: list[str]) -> None:
    assert list(differences(before, now)) == expected


@pytest.mark.parametrize(
    ("index", "changed"),
    [
        (0, {"identity": []}),
        (0, {"identity": {"manifest": 1}}),
        (0, {"steps": 3}),
        (0, {"identity": {"manifest": {}, "hub": []}}),
        (1, {"seconds": "long"}),
        (1, {"solves": [3]}),
        (1, {"work": {"solves": {"seconds": None}}}),
        (1, {"unknown": 1}),
        (1, {"index": None}),
    ],
)
def test_values_of_other_types_are_refused_by_the_journals_name(
    tmp_path: Path, index: int, changed: dict[str, Any]
) -> None:
    journal = Journal.open(tmp_path, IDENTITY, NAMES)
    commit(journal, STEPS[0])
    records, _ = lines.read(journal.path)
    records[index] |= changed
    journal.path.write_bytes(b"".join(map(lines.encode, records)))
    with pytest.raises(ResumeError, match=r"journal.jsonl.*--restart starts over"):
        Journal.open(tmp_path, IDENTITY, NAMES)

"""`regstream bias` shows how far merged models are from the candidates, a row a depth."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from regstream.output.record import read_record

Invoke = Callable[..., Result]


@pytest.mark.slow
def test_the_table(invoke: Invoke, finished: Path) -> None:
    again = ("--also", f"again={finished.parent / 'merged'}")
    result = invoke("bias", finished, *again, "--only", "regmean++", "--only", "again")
    assert result.exit_code == 0, result.stderr
    heading, _, *rows = result.stdout.splitlines()
    columns = [f"{model} {kind}" for kind in ("L1", "1-cos") for model in ("regmean++", "again")]
    assert heading.split() == ["after", *" ".join(columns).split()]
    assert [row[:7].strip() for row in rows] == ["stem", *(f"block {index}" for index in range(5))]
    assert all(row.split()[-1] == row.split()[-2] for row in rows)
    assert all(float(row.split()[-1]) > 0 for row in rows[1:])


@pytest.mark.slow
def test_json_has_a_line_a_model_a_candidate_and_a_depth(invoke: Invoke, finished: Path) -> None:
    result = invoke("bias", finished, "--only", "regmean++", "--json")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(records) == 2 * 6
    assert {(record["model"], record["dataset"]) for record in records} == {
        ("regmean++", "task0"), ("regmean++", "task1")
    }  # fmt: skip
    assert all(record["l1"] >= 0 for record in records)


@pytest.mark.slow
def test_the_numbers_of_all_models_go_into_the_record(invoke: Invoke, finished: Path) -> None:
    output = finished.parent / "merged"
    assert invoke("bias", finished, "--only", "regmean++").exit_code == 0
    assert read_record(output).bias is None
    lines = invoke("bias", finished, "--json").stdout.splitlines()
    bias = read_record(output).bias
    assert bias is not None
    assert [measured.model_dump() for measured in bias] == [json.loads(line) for line in lines]
    assert {measured.model for measured in bias} == {"mean", "regmean++"}
    assert invoke("verify", output).exit_code == 0
    assert "already finished" in invoke("run", finished).stderr


def test_a_model_that_is_not_there_is_2(invoke: Invoke, finished: Path) -> None:
    result = invoke("bias", finished, "--only", "nobody")
    assert result.exit_code == 2
    assert "nobody" in result.stderr

"""`regstream verify` exits with 0 for a whole result and with 4 for any other."""

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

Invoke = Callable[..., Result]


def test_a_whole_result(invoke: Invoke, finished: Path) -> None:
    output = finished.parent / "merged"
    result = invoke("verify", output)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{output}: intact: ")
    record = json.loads(invoke("verify", output, "--json").stdout)
    assert record["problems"] == []
    assert record["num_bytes"] == sum(
        path.stat().st_size for path in output.iterdir() if not path.name.startswith("regstream.")
    )


def test_each_problem_is_a_line(invoke: Invoke, finished: Path) -> None:
    output = finished.parent / "merged"
    (output / "generation_config.json").unlink()
    with (output / "config.json").open("a") as config:
        config.write("\n")
    result = invoke("verify", output)
    assert (result.exit_code, result.stdout) == (4, "")
    assert [line.split(": ")[:3] for line in result.stderr.splitlines()] == [
        ["regstream", "error", str(output / "config.json")],
        ["regstream", "error", str(output / "generation_config.json")],
    ]
    record = invoke("verify", output, "--json")
    assert record.exit_code == 4
    assert len(json.loads(record.stdout)["problems"]) == 2


def test_what_is_no_result_is_4(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("verify", tmp_path)
    assert result.exit_code == 4
    assert len(result.stderr.splitlines()) == 1

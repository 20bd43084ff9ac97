"""`regstream plan --ranks` shows what each rank takes, and the time beside that of one."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Invoke = Callable[..., Result]


def test_a_row_for_each_rank(invoke: Invoke, fresh: Path) -> None:
    lines = invoke("plan", fresh, "--ranks", 3, "--network", "1Gbit").stdout.splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("rank "))
    assert lines[head].split() == ["rank", "memory", "disk", "reads", "sends", "receives", "tokens"]
    assert [line.split()[:2] for line in lines[head + 2 : head + 5]] == [["rank", "0"], ["rank", "1"], ["rank", "2"]]
    times = re.fullmatch(r"takes about .* on one rank, .* on 3: (\d+\.\d\d) times as fast", lines[-3])
    assert times is not None
    assert 0 < float(times[1]) <= 3
    assert "sends and receives 1 Gbit/s; counted in each step are " in lines[-2]
    assert lines[-1].endswith(" more disk space: fits")


def test_the_numbers_of_ranks(invoke: Invoke, fresh: Path) -> None:
    plan = json.loads(invoke("plan", fresh, "--ranks", 4, "--machines", 2, "--json").stdout)
    ranks = plan["ranks"]
    shares = ranks["shares"]
    assert [share["rank"] for share in shares] == [0, 1, 2, 3]
    assert sum(share["num_tokens"] for share in shares) == plan["num_tokens"]
    assert sum(share["sent_bytes"] for share in shares) == sum(share["received_bytes"] for share in shares) > 0
    assert ranks["network_bytes_per_second"] == 1.25e9
    assert ranks["seconds_alone"] == pytest.approx(plan["seconds"])
    slower = json.loads(invoke("plan", fresh, "--ranks", 4, "--network", "1kbit", "--json").stdout)["ranks"]
    assert slower["seconds"] > 100 * ranks["seconds"]
    assert "ranks" not in json.loads(invoke("plan", fresh, "--json").stdout)


def test_ranks_that_do_not_fit_are_refused(invoke: Invoke, fresh: Path) -> None:
    fresh.write_text(fresh.read_text().replace("[resources]", '[resources]\nhost_memory = "64MiB"'))
    refused = invoke("plan", fresh, "--ranks", 2)
    assert refused.exit_code == 3
    assert refused.stdout.splitlines()[-1].endswith(": does not fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ranks", "0"], "--ranks"),
        (["--ranks", "2", "--machines", "3"], "3 machines cannot share 2 ranks"),
        (["--ranks", "2", "--network", "3GB"], 'expected bits a second with their unit, such as "10Gbit", found "3GB"'),
    ],
)
def test_what_cannot_be_is_refused(invoke: Invoke, fresh: Path, options: list[str], message: str) -> None:
    refused = invoke("plan", fresh, *options)
    assert refused.exit_code == 2
    assert message in refused.stderr

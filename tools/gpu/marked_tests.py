"""The tests that are marked for accelerators, as far as their time allows."""

import importlib.util
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.workload import ROOT
from gpu.child import Child, Deadline
from gpu.machine import Machine
from gpu.report import Row
from gpu.setting import Setting

#: Of the part's time, what ending the last test may take.
SPARE_SECONDS = 10
_OPTIONS = ("-q", "-p", "no:cacheprovider", "--continue-on-collection-errors", "-c", str(ROOT / "pyproject.toml"))


def marked_tests(setting: Setting, machine: Machine, deadline: Deadline) -> Iterator[Row]:
    """How many passed, failed, and were not reached."""
    del machine
    name = f"tests {' '.join(filter(None, setting.tests))}"
    if importlib.util.find_spec("pytest") is None:
        yield Row(name, "not run: pytest is not installed")
        return
    # On no device: the tests choose theirs.
    said = Child("", run_tests, setting.tests, deadline.left - SPARE_SECONDS).wait(deadline)
    outcome = json.loads(said.splitlines()[-1])
    told = ", ".join(f"{number} {kind}" for kind, number in outcome["counts"].items())
    not_reached = outcome["collected"] - sum(outcome["counts"].values())
    told += f", {not_reached} not reached in time" if not_reached > 0 else ""
    is_ok = not outcome["failed"] and "passed" in outcome["counts"]
    yield Row(name, told or "none was collected", "some pass, none fails", is_ok)
    yield from (Row(f"… {name}", message, "", ok=False) for name, message in outcome["failed"].items())
    yield from (Row(f"… {name}", f"cannot be imported: {message}") for name, message in outcome["broken"].items())


def run_tests(arguments: Sequence[str], seconds: float) -> None:
    """Run pytest; the last line printed is what came of it, as JSON."""
    import pytest

    outcome = _Outcome()
    code = pytest.main([*_OPTIONS, *arguments], plugins=[_Watcher(outcome, seconds)])
    if code in (pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR):
        sys.exit(f"pytest: {pytest.ExitCode(code).name}")
    print(f"\n{json.dumps(vars(outcome))}")


@dataclass
class _Outcome:
    collected: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)  # the message of each test
    broken: dict[str, str] = field(default_factory=dict)  # of each file that cannot be imported


class _Watcher:
    """A plugin of pytest: notes what comes of each test, and ends the session when its time is over."""

    def __init__(self, outcome: _Outcome, seconds: float) -> None:
        self._outcome, self._deadline = outcome, Deadline(seconds)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self._outcome.broken[report.nodeid] = _last_line(report)

    def pytest_collection_finish(self, session: Any) -> None:
        self._outcome.collected = len(session.items)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or (report.when == "setup" and not report.passed):
            self._outcome.counts[report.outcome] += 1
        if report.failed:
            self._outcome.failed[report.nodeid] = _last_line(report)

    def pytest_runtest_teardown(self, item: Any) -> None:
        if not self._deadline.left:
            item.session.shouldstop = "its time is over"


def _last_line(report: Any) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else report.longreprtext
    return str(text).strip().splitlines()[-1][:200] if str(text).strip() else "failed"

"""`tools/fuzz/run [--cases N] [--seed S] [--kind K]`: a table of how damaged inputs end, and each that ends badly."""

import argparse
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path

from fuzz.case import Case, Outcome, Running
from fuzz.inputs import make_inputs
from fuzz.kinds import KINDS
from fuzz.results import make_results


def main() -> None:
    """Exits with 1 where a case ended badly."""
    parser = argparse.ArgumentParser(prog="tools/fuzz/run")
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0, help="of the first case; the others count on from it")
    parser.add_argument("--kind", choices=KINDS, help="cases of this kind only")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    kinds = [asked.kind] if asked.kind else list(KINDS)
    cases = [
        Case(kind, asked.seed + index // len(kinds)) for index, kind in enumerate(islice(cycle(kinds), asked.cases))
    ]
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        outcomes = []
        for outcome in run_cases(cases, Path(folder), asked.jobs):
            outcomes.append(outcome)
            for problem in outcome.problems:
                print(f'--kind "{outcome.case.kind}" --seed {outcome.case.seed} --cases 1: {problem}', flush=True)
    print("\n".join(table(outcomes)))
    failed = sum(bool(outcome.problems) for outcome in outcomes)
    print(f"\n{len(outcomes):,} cases in {time.monotonic() - begun:.0f} s, {failed} ended badly")
    raise SystemExit(bool(failed))


def run_cases(cases: Sequence[Case], folder: Path, jobs: int) -> Iterator[Outcome]:
    """Run cases, some at a time; `folder` is empty and takes their inputs.

    A case that took too long is run once more by itself at the end: other work may have kept the machine busy.
    """
    inputs = folder / "inputs"
    make_inputs(inputs)
    make_results(inputs)
    late = []
    for outcome in _run_some(cases, inputs, folder, jobs):
        if outcome.is_late:
            late.append(outcome.case)
        else:
            yield outcome
    yield from _run_some(late, inputs, folder, 1)


def _run_some(cases: Sequence[Case], inputs: Path, folder: Path, jobs: int) -> Iterator[Outcome]:
    waiting = iter(enumerate(cases))
    running: dict[int, Running] = {}
    while True:
        for number, case in islice(waiting, jobs - len(running)):
            started = Running(case, inputs, folder / f"case{number}")
            running[started.pid] = started
        if not running:
            return
        ended = False
        for pid in list(running):
            found, status, usage = os.wait4(pid, os.WNOHANG)
            if found:
                yield running.pop(pid).outcome(status, usage)
                ended = True
            elif running[pid].is_late:
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
        if not ended:
            time.sleep(0.01)


def table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """In Markdown, a line a kind."""
    codes = sorted({outcome.exit_code for outcome in outcomes})
    yield f"| kind | cases | {' | '.join(f'exit {code}' for code in codes)} | slowest | ended badly |"
    yield "|---" * (len(codes) + 4) + "|"
    for kind in KINDS:
        own = [outcome for outcome in outcomes if outcome.case.kind == kind]
        if own:
            counts = Counter(outcome.exit_code for outcome in own)
            slowest = max(outcome.seconds for outcome in own)
            bad = sum(bool(outcome.problems) for outcome in own)
            numbers = " | ".join(str(counts[code] or "") for code in codes)
            yield f"| {kind} | {len(own)} | {numbers} | {slowest:.1f} s | {bad or ''} |"


if __name__ == "__main__":
    main()

"""A merge that is killed in its middle and resumed, beside the one that was not."""

import json
from collections.abc import Iterator

from bench.memory import digest
from gpu.child import Child, Deadline, command
from gpu.full_width import FOLDER, prepare
from gpu.machine import Machine
from gpu.report import CheckFailed, Row
from gpu.setting import Setting

#: Of four blocks, and after as many pieces of its work.
_BLOCK, _PIECES = '"block 2"', 3


def resume(setting: Setting, machine: Machine, deadline: Deadline) -> Iterator[Row]:
    """Whether the shards are the same to the byte."""
    del machine
    if not (FOLDER / "narrow" / "merged" / "regstream.json").exists():
        raise CheckFailed("there is no undisturbed result to compare with")
    manifest = prepare(setting.narrow, FOLDER / "killed", deadline)
    first = Child(setting.device, command, "run", manifest, "--json")
    first.wait_until(lambda said: said.partition(_BLOCK)[2].count('"progressed"') >= _PIECES, deadline)
    first.kill()
    if first.exit_code == 0:
        raise CheckFailed("the merge ended before it was killed")
    said = Child(setting.device, command, "run", manifest, "--json").wait(deadline)
    begun = next(event for line in said.splitlines() if (event := json.loads(line))["event"] == "run_started")
    same = digest(FOLDER / "killed" / "merged") == digest(FOLDER / "narrow" / "merged")
    yield Row(
        "narrow, killed (SIGKILL) and resumed",
        f"{begun['done']} of {begun['total']} steps were done; {'the same' if same else 'other'} bytes",
        "some steps were done; the same bytes",
        ok=same and begun["done"] > 0,
    )

"""Merges at the width of published models: memory, time, and both of a plain implementation on the same device."""

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.workload import WORK, Workload
from gpu.child import Child, Deadline, command
from gpu.expected import expect
from gpu.in_memory import DOES_NOT_FIT, merge_in_memory
from gpu.machine import Machine
from gpu.report import CheckFailed, Row, projection
from gpu.setting import Setting
from regstream.output.record import MEASURED
from regstream.units import format_bytes

FOLDER = WORK / "gpu"


def narrow(setting: Setting, machine: Machine, deadline: Deadline) -> Iterator[Row]:
    """At the width of 1B models."""
    yield from _merge(setting, setting.narrow, FOLDER / "narrow", machine, deadline)


def wide(setting: Setting, machine: Machine, deadline: Deadline) -> Iterator[Row]:
    """At the width of 8B models."""
    yield from _merge(setting, setting.wide, FOLDER / "wide", machine, deadline)


def prepare(workload: Workload, folder: Path, deadline: Deadline) -> Path:
    """Checkpoints, rows and manifest of a merge; the manifest."""
    Child("", write, workload, folder).wait(deadline)
    return folder / "manifest.toml"


def write(workload: Workload, folder: Path) -> None:
    """Write them in this process."""
    workload.manifest(folder)


def _merge(setting: Setting, workload: Workload, folder: Path, machine: Machine, deadline: Deadline) -> Iterator[Row]:
    yield Row(f"**{folder.name}**", workload.name)
    manifest = prepare(workload, folder, deadline)
    yield Row("… random checkpoints written", f"{deadline.past:.0f} s")
    expected = json.loads(Child(workload.device, expect, manifest).wait(deadline))
    started = time.monotonic()
    Child(workload.device, command, "run", manifest).wait(deadline)
    seconds = time.monotonic() - started
    steps = json.loads((folder / "merged" / MEASURED).read_text())["steps"]
    yield from _memory(steps, expected, machine, setting.most_projected)
    yield from _time(steps, expected)
    yield from _beside_in_memory(workload, manifest, seconds, deadline)


def _memory(
    steps: list[dict[str, Any]], expected: Mapping[str, float], machine: Machine, most: float | None
) -> Iterator[Row]:
    """Projected peaks over measured ones; of the device with the context if that was measured, else without."""
    measured = max(step["device_peak_bytes"] for step in steps)
    projected = int(expected["device_bytes"])
    if machine.context_bytes is None:
        projected -= int(expected["context_bytes"])
        told = ", without a context"
    else:
        measured += machine.context_bytes
        told = f", of it {format_bytes(machine.context_bytes)} for the context"
    yield projection("… device peak", measured, projected, told, most)
    on_host = max((step["peak_bytes"], step["projected_bytes"]) for step in steps)
    yield projection("… host peak", *on_host, "", most)


def _time(steps: list[dict[str, Any]], expected: Mapping[str, float]) -> Iterator[Row]:
    seconds = sum(float(step["seconds"]) for step in steps)
    kinds: Counter[str] = Counter()
    for step in steps:
        kinds.update({kind: entry["seconds"] for kind, entry in step["work"].items()})
    yield Row("… time of all steps", f"{seconds:.1f} s; the plan estimated {expected['plan_seconds']:.1f} s")
    yield Row("… by kind of work", ", ".join(f"{kind} {spent:.1f} s" for kind, spent in kinds.most_common()))
    yield Row("… share of the device's product rate", f"{expected['product_seconds'] / seconds:.0%}")


def _beside_in_memory(workload: Workload, manifest: Path, seconds: float, deadline: Deadline) -> Iterator[Row]:
    started = time.monotonic()
    try:
        said = Child(workload.device, merge_in_memory, manifest).wait(deadline)
    except CheckFailed as failure:
        fits = DOES_NOT_FIT not in str(failure)
        yield Row("… plain, in memory", str(failure) if fits else "does not fit into the device's memory")
        return
    plain_seconds = time.monotonic() - started
    device_bytes = json.loads(said.splitlines()[-1])["device_bytes"]
    yield Row(
        "… plain, in memory",
        f"{plain_seconds:.1f} s beside {seconds:.1f} s from start to end: regstream is"
        f" {plain_seconds / seconds:.2f} times as fast; tensors take {format_bytes(device_bytes)}",
    )

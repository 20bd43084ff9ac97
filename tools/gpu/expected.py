"""What is to be expected of a merge: the plan's peaks and time, and the device's own time for as many FLOP."""

import json
from pathlib import Path

from bench.roofline import product_seconds
from regstream.manifest.read_manifest import read_manifest
from regstream.planning.planning import make_plan


def expect(manifest: Path) -> None:
    """Print it as JSON, in seconds and bytes; the context is a part of the device's peak."""
    plan = make_plan(read_manifest(manifest), for_this_machine=False)
    expected = {
        "plan_seconds": sum(plan.step_seconds),
        "product_seconds": sum(product_seconds(manifest).values()),
        "device_bytes": plan.projected_bytes(plan.peak_step, "device"),
        "context_bytes": plan.projections[plan.peak_step.index].terms["device"]["context"],
    }
    print(json.dumps(expected))

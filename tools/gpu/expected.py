"""What is to be expected of a merge: the plan's time, and how long the device's product takes for as many FLOP."""

import json
from pathlib import Path

from bench.roofline import product_seconds
from regstream.manifest.read_manifest import read_manifest
from regstream.plan.planning import make_plan


def expect(manifest: Path) -> None:
    """Print both as JSON, in seconds."""
    plan = make_plan(read_manifest(manifest), for_this_machine=False)
    print(json.dumps({"plan": sum(plan.step_seconds), "product": sum(product_seconds(manifest).values())}))

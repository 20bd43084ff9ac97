"""The plain implementation, which holds base and candidates, on the device."""

import json
from pathlib import Path

import torch

from bench import baseline
from regstream.device.memory import measured_peak
from regstream.manifest.read_manifest import read_manifest

#: As torch calls it.
DOES_NOT_FIT = "OutOfMemoryError"


def merge_in_memory(manifest: Path) -> None:
    """Merge what a manifest names, into a folder beside it; print the device's peak as JSON, in bytes."""
    device = torch.device(str(read_manifest(manifest).resources.device))
    with measured_peak(device) as peak:
        baseline.merge(manifest, manifest.parent / "plain")
    print(json.dumps({"device_bytes": peak.device_bytes}))

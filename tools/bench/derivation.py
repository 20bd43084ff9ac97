"""What it takes to derive an architecture from a config; as a command, of one shape: `python -m bench.derivation SHAPE`."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.process import run
from bench.workload import WORK
from regstream.units import format_bytes
from synthetic.shapes import SHAPES

NAMES = ("smollm2-135m", "llama-3.1-8b", "llama-3.1-70b", "llama-3.1-405b", "clip-vit-l-14")


def derivation() -> Iterator[str]:
    """The peak memory and the processor time of a process that derives an architecture and does nothing else."""
    WORK.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        taken = run(command(name))
        yield f"- {name}: peak {format_bytes(taken.peak_bytes)}; {taken.said.strip()}"


def command(shape: str) -> list[str | Path]:
    """The command that derives the architecture of one shape."""
    return [sys.executable, "-m", "bench.derivation", shape]


def main() -> None:
    """Derive the architecture of a shape; what it took of the processor goes to standard error."""
    from regstream.models.derivation.derive import derive_architecture  # what measures it needs no torch

    began = time.process_time()
    derive_architecture(SHAPES[sys.argv[1]], Path("config.json"))
    print(f"{time.process_time() - began:.1f} s of processor time after imports", file=sys.stderr)


if __name__ == "__main__":
    main()

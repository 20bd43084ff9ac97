"""What is run on a card, and what in a dry run: the same, but tiny and on a simulated device."""

from dataclasses import dataclass, replace

from bench.workload import Workload


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What the check runs."""

    device: str
    tests: tuple[str, ...]  # arguments of pytest
    narrow: Workload  # at the width of 1B models
    wide: Workload  # at the width of 8B models
    small: Workload  # in float32; merged on the CPU too
    eigenvectors: tuple[int, ...]  # widths of matrices
    most_projected: float | None  # times the measured peak, for merges large enough to tell


_SMALL = Workload(shape="tiny-llama", blocks=4, candidates=2, rows=64, length=16, dtype="float32")
CARD = Setting(
    device="cuda",
    tests=("-m", "gpu", "tests/unit", "tests/e2e"),
    narrow=Workload(shape="llama-3.2-1b", blocks=4, candidates=3, rows=32, length=2048, vocabulary=4096, device="cuda"),
    wide=Workload(shape="llama-3.1-8b", blocks=4, candidates=3, rows=24, length=2048, vocabulary=4096, device="cuda"),
    small=replace(_SMALL, device="cuda"),
    eigenvectors=(2048, 4096),
    most_projected=1.25,
)
_TINY = replace(_SMALL, device="simulated", candidates=3)
DRY_RUN = Setting(
    device="simulated",
    tests=("-m", "", "-k", "simulated and identical and llama", "tests/e2e/test_theorems.py"),
    narrow=_TINY,
    wide=_TINY,
    small=replace(_SMALL, device="simulated"),
    eigenvectors=(256,),
    most_projected=None,
)

"""What the environment of a process says of the launcher that started it: torchrun, accelerate, or srun.

Loading this file imports no torch.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from regstream.errors import ManifestError

#: Variables of a process: its number, how many there are, and both on its machine. srun's are those of a job's step,
#: not of the job, whose script is a single process.
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_SRUN = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE")
_ADDRESS = ("MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, kw_only=True)
class RankId:
    """One process of a run: `rank` of `size`, and `local_rank` of `local_size` on its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


#: The only process of its run.
ALONE = RankId()


def launched(environment: Mapping[str, str] = os.environ) -> RankId | None:
    """What a launcher started this process as; None where it is the only one of its run.

    Raises:
        ManifestError: a variable is missing, or is not the number that it should be.
    """
    names = _TORCHRUN if "WORLD_SIZE" in environment else _SRUN
    if environment.get(names[1], "1").strip() in ("", "1"):
        return None
    rank, size = (_number(environment, name) for name in names[:2])
    local_rank = _number(environment, names[2], default=rank)
    # srun writes "4" or "4(x2)" where machines have as many processes each.
    local_size = _number(environment, names[3], default=size, until="(")
    if not (rank < size and local_rank < local_size <= size):
        numbers = ", ".join(f"{name}={environment.get(name, '')}" for name in names)
        raise ManifestError(f"variables of the launcher contradict one another: {numbers}; use torchrun")
    for name in _ADDRESS:
        if not environment.get(name):
            advice = "export the host name of rank 0 and a free port there"
            raise ManifestError(f"{name} is not set, but {names[1]} says that there are {size} ranks; {advice}")
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size))  # torch.distributed reads these two
    return RankId(rank=rank, size=size, local_rank=local_rank, local_size=local_size)


def leave_launcher() -> None:
    """Go on as the only process: what the launcher has said is no longer in the environment."""
    for name in (*_TORCHRUN, *_SRUN):
        os.environ.pop(name, None)


def _number(environment: Mapping[str, str], name: str, default: int | None = None, until: str = "\n") -> int:
    text = environment.get(name, "" if default is None else str(default)).split(until)[0].split(",")[0].strip()
    if not text.isdecimal():
        problem = f"is {text!r}, which is no number" if text else "is not set"
        raise ManifestError(f"{name} {problem}, though other variables of a launcher are; use torchrun")
    return int(text)

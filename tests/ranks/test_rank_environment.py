"""What a process learns of its ranks from the variables of torchrun and of srun."""

import pytest

from regstream.errors import ManifestError
from regstream.ranks.environment import RankId, launched

_ADDRESS = {"MASTER_ADDR": "host-a", "MASTER_PORT": "29500"}
_TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", **_ADDRESS}
_SRUN = {
    "SLURM_PROCID": "3",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    **_ADDRESS,
}


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `launched` writes for torch.distributed is taken back."""
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "")


def test_torchrun_says_all() -> None:
    assert launched(_TORCHRUN) == RankId(rank=5, size=8, local_rank=1, local_size=4)


def test_srun_says_all_of_its_step() -> None:
    assert launched(_SRUN) == RankId(rank=3, size=4, local_rank=1, local_size=2)


def test_torchrun_counts_inside_of_a_task_of_srun() -> None:
    assert launched(_SRUN | _TORCHRUN) == RankId(rank=5, size=8, local_rank=1, local_size=4)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},  # the script of a job
        {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
        {"WORLD_SIZE": "1", "RANK": "0"},
    ],
)
def test_a_process_on_its_own(environment: dict[str, str]) -> None:
    assert launched(environment) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"RANK": "8"}, "RANK=8, WORLD_SIZE=8"),
        ({"LOCAL_RANK": "4"}, "LOCAL_RANK=4, LOCAL_WORLD_SIZE=4"),
        ({"LOCAL_WORLD_SIZE": "9"}, "WORLD_SIZE=8, LOCAL_RANK=1, LOCAL_WORLD_SIZE=9"),
        ({"RANK": "first"}, "RANK is 'first', which is no number"),
        ({"RANK": ""}, "RANK is not set"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR is not set, but WORLD_SIZE says that there are 8 ranks"),
        ({"MASTER_PORT": ""}, "MASTER_PORT is not set"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, str], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        launched(_TORCHRUN | changes)

"""Two hosts: network namespaces joined by a link of 1 Gbit/s, each with a disk that the other does not see."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from merging import Merge, make_merge, worst_difference
from rank_merges import ROUNDING, shards, tensors

NAMES = ("regstream-a", "regstream-b")
ADDRESSES = ("10.207.0.1", "10.207.0.2")
PORT = 29517
SECONDS = 120

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("tc")), reason="needs root, ip and tc"
    ),
]


def system(*command: str) -> None:
    """Run a command that must succeed."""
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(name="hosts")
def hosts_fixture() -> Iterator[None]:
    """Two namespaces with a link between them."""
    if subprocess.run(["ip", "netns", "add", "regstream-probe"], check=False, capture_output=True).returncode:
        pytest.skip("this system makes no network namespaces")
    system("ip", "netns", "del", "regstream-probe")
    try:
        for name in NAMES:
            system("ip", "netns", "add", name)
        system("ip", "link", "add", "rs0", "netns", NAMES[0], "type", "veth", "peer", "rs0", "netns", NAMES[1])
        for name, address in zip(NAMES, ADDRESSES, strict=True):
            system("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "rs0")
            for device in ("rs0", "lo"):
                system("ip", "-n", name, "link", "set", device, "up")
            limit = ("rate", "1gbit", "burst", "1mb", "latency", "50ms")
            system("tc", "-n", name, "qdisc", "add", "dev", "rs0", "root", "tbf", *limit)
        yield
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def start(merge: Merge, rank: int, *options: str) -> "subprocess.Popen[bytes]":
    """Start a rank on its host: the second has its own disk in the place of the output."""
    variables: dict[str, object] = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
    variables |= {"MASTER_ADDR": ADDRESSES[0], "MASTER_PORT": PORT, "GLOO_SOCKET_IFNAME": "rs0"}
    environment = os.environ | {name: str(value) for name, value in variables.items()}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "regstream", "run", str(merge.manifest), *options]
    if rank == 1:
        merge.output.mkdir(exist_ok=True)
        mounted = 'mount -t tmpfs own-disk "$0" && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", mounted, str(merge.output), *command]
    return subprocess.Popen(
        ["ip", "netns", "exec", NAMES[rank], *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.usefixtures("hosts")
def test_the_result_is_that_of_one_process_and_the_same_bytes_again(tmp_path: Path) -> None:
    one_process, merge = make_merge(tmp_path / "one", num_rows=12), make_merge(tmp_path / "hosts", num_rows=12)
    one_process.run()
    results = []
    for _ in range(2):
        processes = [start(merge, rank, "--restart") for rank in range(2)]
        written = [process.communicate(timeout=SECONDS) for process in processes]
        assert [process.returncode for process in processes] == [0, 0], written
        results.append(shards(merge.output))
    assert results[0] == results[1]
    difference, name = worst_difference(tensors(merge.output), tensors(one_process.output))
    assert difference <= ROUNDING, f"{name}: {difference:.1e}"

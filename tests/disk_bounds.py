"""A bound on the disk, and what lies there while a merge is under way."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from merging import Merge

INTERVAL_SECONDS = 0.002  # much less than a shard takes


def with_disk(merge: Merge, num_bytes: int) -> None:
    """Bound the disk."""
    text = merge.manifest.read_text().replace("[resources]\n", f'[resources]\ndisk = "{num_bytes}B"\n')
    merge.manifest.write_text(text)


def weights_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


@contextmanager
def sampled(*folders: Path) -> Iterator[list[int]]:
    """Bytes in the folders' files, over and over while the context lasts."""
    sizes, done = [0], threading.Event()

    def sample() -> None:
        while not done.is_set():
            total = 0
            for folder in folders:
                for parent, _, names in os.walk(folder):
                    for name in names:
                        try:
                            total += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118
                        except FileNotFoundError:
                            continue
            sizes.append(total)
            done.wait(INTERVAL_SECONDS)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield sizes
    finally:
        done.set()
        thread.join()

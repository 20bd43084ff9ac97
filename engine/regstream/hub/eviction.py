"""Which downloaded shards stay on disk: a policy without files, which a plan simulates and a run follows.

A shard is evicted after its last use. Where the shards of a step do not fit beside the others, all that the step does
not read are evicted, and downloaded again for a later step.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from regstream.hub.repository import HubFile


@dataclass(frozen=True, kw_only=True)
class StepShards:
    """The shards that a step reads, in order, and the limit on bytes of shards on disk during it; None: no limit."""

    files: tuple[HubFile, ...]
    max_bytes: int | None = None


class EvictionPolicy:
    """The shards that a run has downloaded and not evicted, `files`, a set in insertion order."""

    def __init__(self, steps: Sequence[StepShards], files: Iterable[HubFile]) -> None:
        self._steps = steps
        self._index = 0
        self._last_use = {file: index for index, step in enumerate(steps) for file in step.files}
        self.files = dict.fromkeys(files)

    @property
    def num_bytes(self) -> int:
        """The size of all these shards."""
        return sum(file.size for file in self.files)

    def begin_step(self, index: int) -> list[HubFile]:
        """Advance to a step; returns the shards to evict."""
        self._index = index
        if self._max_bytes is None:
            return []
        evicted = self._evict(lambda file: self._last_use.get(file, -1) < index)
        return evicted if self._fits(0) else evicted + self._evict(self._is_unused)

    def admit(self, file: HubFile) -> list[HubFile]:
        """Add a shard that is to be downloaded; returns the shards to evict first."""
        if file in self.files:
            return []
        evicted = [] if self._fits(file.size) else self._evict(self._is_unused)
        if not self._fits(file.size) and self._is_unused(file):
            evicted += self._evict(lambda _: True)  # an unplanned read, which recomputes hidden states
        self.files[file] = None
        return evicted

    def next_prefetch(self, is_cached: Callable[[HubFile], bool]) -> HubFile | None:
        """The next shard that is missing; None without one, or without space for it.

        With a limit, only this step's and the next one's: a shard for a later step might be evicted before its use.
        """
        steps = self._steps[self._index :] if self._max_bytes is None else self._steps[self._index : self._index + 2]
        file = next((file for step in steps for file in step.files if not is_cached(file)), None)
        return file if file is not None and self._fits(file.size) else None

    @property
    def _max_bytes(self) -> int | None:
        return self._steps[min(self._index, len(self._steps) - 1)].max_bytes if self._steps else None

    def _fits(self, num_bytes: int) -> bool:
        return self._max_bytes is None or self.num_bytes + num_bytes <= self._max_bytes

    def _is_unused(self, file: HubFile) -> bool:
        """Whether the current step does not read it."""
        return all(file not in step.files for step in self._steps[self._index : self._index + 1])

    def _evict(self, is_evicted: Callable[[HubFile], bool]) -> list[HubFile]:
        evicted = [file for file in self.files if is_evicted(file)]
        for file in evicted:
            del self.files[file]
        return evicted

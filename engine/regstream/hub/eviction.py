"""Which shards of the hub are held at which stage of the work, and which have to go when others come.

The rule by itself, without any file: a plan goes through it to tell what a run will take, a run to do it.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf

from regstream.hub.repository import HubFile


@dataclass(frozen=True, kw_only=True)
class StepShards:
    """The shards that a step reads, in its order, and how many bytes of shards may be held meanwhile; None: any."""

    files: tuple[HubFile, ...]
    allowance: int | None = None


class EvictionPolicy:
    """The shards that one run brought and that are still there.

    Under an allowance a shard goes when no stage needs it any more; and where there is no room for another, the one
    goes that is needed again last (L. A. Belady, IBM Systems Journal 5(2), 1966), to be fetched again.
    """

    def __init__(self, stages: Sequence[StepShards], held: Iterable[HubFile]) -> None:
        self._stages = stages
        self._now = 0
        self._uses: dict[HubFile, list[int]] = {}
        for index, stage in enumerate(stages):
            for file in stage.files:
                self._uses.setdefault(file, []).append(index)
        self.held = dict.fromkeys(held)  # a set in a fixed order

    @property
    def held_bytes(self) -> int:
        """What they take."""
        return sum(file.size for file in self.held)

    @property
    def is_over(self) -> bool:
        """Whether that is more than may be held."""
        return not self._fits(0)

    def begin(self, index: int) -> list[HubFile]:
        """Come to a stage; which shards have to go."""
        self._now = index
        if self._allowance is None:
            return []
        gone = [file for file in self.held if self._next_use(file) == inf]
        for file in gone:
            del self.held[file]
        return gone + self._make_room(0, for_now=True)

    def admit(self, file: HubFile) -> list[HubFile]:
        """Take a shard in, if it is not; which others have to go before."""
        if file in self.held:
            return []
        gone = self._make_room(file.size, for_now=self._next_use(file) == self._now)
        self.held[file] = None
        return gone

    def upcoming(self, is_there: Callable[[HubFile], bool]) -> HubFile | None:
        """The shard that is needed next and is not there; None where there is none, or no room for it yet."""
        needed = (file for stage in self._stages[self._now :] for file in stage.files)
        soonest = next((file for file in needed if not is_there(file)), None)
        return soonest if soonest is not None and self._fits(soonest.size) else None

    @property
    def _allowance(self) -> int | None:
        return self._stages[min(self._now, len(self._stages) - 1)].allowance if self._stages else None

    def _fits(self, num_bytes: int) -> bool:
        return self._allowance is None or self.held_bytes + num_bytes <= self._allowance

    def _make_room(self, num_bytes: int, *, for_now: bool) -> list[HubFile]:
        """What is read at this stage goes only for what is not, and was not foreseen."""
        gone: list[HubFile] = []
        while self.held and not self._fits(num_bytes):
            last = max(self.held, key=self._next_use)
            if for_now and self._next_use(last) == self._now:
                break
            del self.held[last]
            gone.append(last)
        return gone

    def _next_use(self, file: HubFile) -> float:
        uses = self._uses.get(file, [])
        position = bisect_left(uses, self._now)
        return uses[position] if position < len(uses) else inf

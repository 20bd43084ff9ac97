"""What a rank tells the others each second."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from regstream.events import RankProgress


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """Differs from the one before it in `count`. `progress` is the step, the fraction of its work, and what is done.

    A rank that is "done" waits for the others; one that is "gone" ends. `knows_ending`: it knows which rank failed, and
    `first_knows`: it has heard that rank 0 does.
    """

    count: int = 0
    phase: Literal["running", "done", "gone"] = "running"
    knows_ending: bool = False
    first_knows: bool = False
    progress: Sequence[Any] = ("", 0.0, "")

    @classmethod
    def read(cls, data: bytes) -> Self:
        """What `written` wrote."""
        return cls(**json.loads(data))

    def written(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    def rank_progress(self, rank: int, host: str) -> RankProgress:
        """The progress, as that of a rank."""
        step, fraction, doing = self.progress
        return RankProgress(rank=rank, host=host, step=step, fraction=fraction, doing=doing)

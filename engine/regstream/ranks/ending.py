"""How the ranks of a run end before it is complete: which one failed or died, and with which exit code."""

import json
import sys
from dataclasses import asdict, dataclass
from typing import Self

from regstream.errors import RankError, RegstreamError, error_reason

_MAX_MESSAGE_CHARS = 4_000


@dataclass(frozen=True, kw_only=True)
class Ending:
    """The rank that failed first, its message, and the exit code of all ranks; no message where it just ended."""

    rank: int
    message: str = ""
    exit_code: int = RegstreamError.exit_code

    @classmethod
    def by(cls, rank: int, error: BaseException) -> Self:
        """The ending that an error of a rank causes."""
        if isinstance(error, RegstreamError):
            message = "; ".join(str(error).splitlines())
            return cls(rank=rank, message=message[:_MAX_MESSAGE_CHARS], exit_code=error.exit_code)
        return cls(rank=rank, message=f"unexpected error: {type(error).__name__}: {error_reason(error)}")

    @classmethod
    def read(cls, data: bytes) -> Self | None:
        """What `written` wrote; None for nothing."""
        return cls(**json.loads(data)) if data != NO_ENDING.encode() else None

    def written(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    def error(self, label: str) -> RankError:
        """What the other ranks raise; `label` names the rank."""
        text = f": {self.message}" if self.message else " ended without a message; rerun the command to resume"
        return RankError(f"{label}{text}", exit_code=self.exit_code)


#: What stands for an ending while there is none.
NO_ENDING = "none"


def write_to_stderr(error: RankError | None) -> None:
    """Write of an ending, where the command line does not."""
    if error is not None:
        sys.stderr.write(f"regstream: error: {error}\n")

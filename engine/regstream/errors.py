"""What can go wrong, each kind with the exit code that it owns.

Every message is one line: what, where (candidate, block, tensor, file, line), the numbers, what to do.
"""

from collections.abc import Sequence
from typing import ClassVar


class RegstreamError(Exception):
    """Anything that regstream refuses or gives up on; `exit_code` is the process's."""

    exit_code: ClassVar[int] = 1


class ManifestError(RegstreamError):
    """The manifest asks for something that does not exist or contradicts itself.

    Holds every problem that was found, so that a person mends the file once: `str()` is one line a problem.
    """

    exit_code = 2

    def __init__(self, problems: Sequence[str] | str) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class BudgetError(RegstreamError):
    """The work does not fit into the memory or the disk it was given."""

    exit_code = 3


class InputError(RegstreamError):
    """A checkpoint or a calibration set is damaged, incomplete, or not what the others are."""

    exit_code = 4


class ResumeError(RegstreamError):
    """What was begun cannot be gone on with: an input changed, or the record of it is damaged."""

    exit_code = 5


class SolveError(RegstreamError):
    """A regression has no trustworthy solution."""

    exit_code = 6


class Interrupted(RegstreamError):
    """The run was asked to stop and stands at a safe point."""

    exit_code = 130

"""An operation that fails in place of a kill: a full disk, a broken disk, half a write."""

import errno

import pytest

from crash.faults import in_child, of_every_kind, refuse, with_fault
from crash.resuming import Resuming, contents


def check_failing(resuming: Resuming, places: list[str], index: int, number: int) -> None:
    """The run ends with an error and goes on later, or it could do without what failed and its result is whole."""
    place = places[index]
    if in_child(lambda: with_fault(resuming.run, resuming.merge.output, index, refuse(number))) == 0:
        assert contents(resuming.merge.output) == resuming.undisturbed, place
    assert not list(resuming.merge.output.glob("*.partial")), place
    resuming.check(place)


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
def test_at_every_kind_of_operation(resuming: Resuming, places: list[str], kinds_before: set[str], number: int) -> None:
    """A run does not look at the errno: half of the kinds fail by one, the other half by the other."""
    for index in of_every_kind(places, seed=0, without=kinds_before)[number % 2 :: 2]:
        check_failing(resuming, places, index, number)

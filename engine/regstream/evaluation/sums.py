"""What an evaluation sums up over the tokens or images of a data set; ranks that share the rows add their sums."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from regstream.ranks.group import Ranks


@dataclass(frozen=True)
class Sums:
    """Totals of one or more quantities, and of how many tokens or images each is."""

    totals: tuple[float, ...]
    count: int

    def __add__(self, other: "Sums") -> "Sums":
        """Those of both."""
        totals = (mine + others for mine, others in zip(self.totals, other.totals, strict=True))
        return Sums(tuple(totals), self.count + other.count)

    @property
    def means(self) -> tuple[float, ...]:
        """The mean of each quantity."""
        return tuple(total / self.count for total in self.totals)


class Place(NamedTuple):
    """Which model on which data set, and at which depth of hidden states."""

    model: int  # its number
    dataset: str
    depth: int


def as_record(place: Place, sums: Sums) -> dict[str, Any]:
    """Sums as the journal holds them."""
    return {**place._asdict(), **asdict(sums)}


def add_up(records: Iterable[Mapping[str, Any]], ranks: Ranks) -> dict[Place, Sums]:
    """The sums of all ranks, added in the order of ranks; each calls this with its own records and gets all."""
    found: dict[Place, Sums] = {}
    for record in (record for own in ranks.gather(list(records)) for record in own):
        place = Place(record["model"], record["dataset"], record["depth"])
        sums = Sums(tuple(record["totals"]), record["count"])
        found[place] = found[place] + sums if place in found else sums
    return found

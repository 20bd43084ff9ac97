"""Block selectors, such as "3", "0,4-7", "late" or "early+late": their syntax, and which blocks they choose."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

REGIONS: Final = ("early", "middle", "late")
_RANGE = re.compile(r"([0-9]{1,6})(?:\s*-\s*([0-9]{1,6}))?")
_SYNTAX = 'a block "3", a range "0-7", a list "0,4-7", or thirds "early", "middle", "late", "middle+late"'


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """A parsed selector. `ranges` are inclusive, sorted, joined where they touch; `regions` are ordered by depth."""

    ranges: tuple[tuple[int, int], ...] = ()
    regions: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One spelling for all selectors that are written differently and mean the same."""
        ranges = (f"{first}" if first == last else f"{first}-{last}" for first, last in self.ranges)
        return ",".join([*ranges, *self.regions])


@lru_cache(maxsize=256)
def parse_blocks(text: str) -> Blocks:
    """Check a selector's syntax and take it apart; how many blocks there are need not be known yet.

    Raises:
        ValueError: the text is no selector, or a range runs backwards.
    """
    ranges: list[tuple[int, int]] = []
    regions: set[str] = set()
    for part in (part.strip() for part in re.split("[,+]", text)):
        if part in REGIONS:
            regions.add(part)
        else:
            ranges.append(_parse_range(part, text))
    return Blocks(ranges=_joined(ranges), regions=tuple(region for region in REGIONS if region in regions))


@lru_cache(maxsize=256)
def select_blocks(text: str, num_blocks: int) -> frozenset[int]:
    """The blocks, counted from 0, that a selector chooses in a model of `num_blocks`.

    Thirds end at `round(num_blocks / 3)` and `round(2 * num_blocks / 3)`; of one or two blocks a third can be empty.

    Raises:
        ValueError: the text is no selector, or it names a block that the model does not have.
    """
    blocks = parse_blocks(text)
    last = max((last for _, last in blocks.ranges), default=-1)
    if last >= num_blocks:
        raise ValueError(f'"{text}" names block {last}, but the model has {num_blocks} blocks, 0 to {num_blocks - 1}')
    spans = [range(first, last + 1) for first, last in blocks.ranges]
    spans += [_third(region, num_blocks) for region in blocks.regions]
    return frozenset().union(*spans)


def _third(region: str, num_blocks: int) -> range:
    start = REGIONS.index(region)
    return range(round(start * num_blocks / 3), round((start + 1) * num_blocks / 3))


def _parse_range(part: str, text: str) -> tuple[int, int]:
    match = _RANGE.fullmatch(part)
    if match is None:
        raise ValueError(
            f'expected {_SYNTAX}, found "{part}" in "{text}"' if part != text else f'expected {_SYNTAX}, found "{text}"'
        )
    first = int(match[1])
    last = int(match[2] or match[1])
    if last < first:
        raise ValueError(f'the range "{part}" runs backwards; write "{last}-{first}"')
    return first, last


def _joined(ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return tuple(joined)

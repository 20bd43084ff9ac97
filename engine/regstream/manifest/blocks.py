"""Block selectors, such as "3", "0,4-7", "late" or "early+late"."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

REGIONS: Final = ("early", "middle", "late")
_RANGE = re.compile(r"([0-9]{1,6})(?:\s*-\s*([0-9]{1,6}))?")
_SYNTAX = 'a block "3", a range "0-7", a list "0,4-7", or thirds "early", "middle", "late", "middle+late"'


@dataclass(frozen=True, kw_only=True)
class ParsedSelector:
    """A parsed selector. `ranges` are inclusive, sorted, and merged if adjacent; `regions` are in order of depth."""

    ranges: tuple[tuple[int, int], ...] = ()
    regions: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The canonical spelling, the same for all selectors with these ranges and regions."""
        ranges = (f"{first}" if first == last else f"{first}-{last}" for first, last in self.ranges)
        return ",".join([*ranges, *self.regions])


@lru_cache(maxsize=256)
def parse_blocks(text: str) -> ParsedSelector:
    """Parse a selector; the number of blocks need not be known.

    Raises:
        ValueError: the text is not a selector, or a range is reversed.
    """
    ranges: list[tuple[int, int]] = []
    regions: set[str] = set()
    for part in (part.strip() for part in re.split("[,+]", text)):
        if part in REGIONS:
            regions.add(part)
        else:
            ranges.append(_parse_range(part, text))
    return ParsedSelector(
        ranges=_merge_ranges(ranges), regions=tuple(region for region in REGIONS if region in regions)
    )


@lru_cache(maxsize=256)
def select_blocks(text: str, num_blocks: int) -> frozenset[int]:
    """The indices of the blocks that a selector names in a model of `num_blocks`.

    The thirds end at `round(num_blocks / 3)` and `round(2 * num_blocks / 3)`. With one or two blocks, some are empty.

    Raises:
        ValueError: the text is not a selector, or it names a block that the model does not have.
    """
    selector = parse_blocks(text)
    last = max((last for _, last in selector.ranges), default=-1)
    if last >= num_blocks:
        raise ValueError(f'"{text}" names block {last}, but the model has {num_blocks} blocks, 0 to {num_blocks - 1}')
    spans = [range(first, last + 1) for first, last in selector.ranges]
    spans += [_third(region, num_blocks) for region in selector.regions]
    return frozenset().union(*spans)


def _third(region: str, num_blocks: int) -> range:
    start = REGIONS.index(region)
    return range(round(start * num_blocks / 3), round((start + 1) * num_blocks / 3))


def _parse_range(part: str, text: str) -> tuple[int, int]:
    match = _RANGE.fullmatch(part)
    if match is None:
        raise ValueError(f'expected {_SYNTAX}, found "{part}"' + (f' in "{text}"' if part != text else ""))
    first = int(match[1])
    last = int(match[2] or match[1])
    if last < first:
        raise ValueError(f'the range "{part}" is reversed; write "{last}-{first}"')
    return first, last


def _merge_ranges(ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)

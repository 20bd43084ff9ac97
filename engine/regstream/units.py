"""Sizes, rates, durations and lists of names as people write and read them."""

import re
from collections.abc import Sequence

_BINARY = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_DECIMAL = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_RATE = re.compile(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([kmgt])bit\s*", re.IGNORECASE)
_SIZE = re.compile(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([kmgt]?)(i?)(b?)\s*", re.IGNORECASE)


def parse_bytes(text: str) -> int:
    """Read a size such as "8GiB", "500 MB" or "1024 B". A number alone is refused: it may be meant in any unit.

    Raises:
        ValueError: the text is no size with its unit.
    """
    match = _SIZE.fullmatch(text)
    if match is None or not (match[2] or match[4]):
        raise ValueError(f'expected a size with its unit, such as "8GiB", found "{text:.40}"')
    number, prefix, binary, _ = match.groups()
    scale = (_BINARY if binary or not prefix else _DECIMAL)[prefix.lower()]
    return int(float(number) * scale)


def format_bytes(num_bytes: float) -> str:
    """Write a number of bytes in binary units with three significant figures: `4.69 GiB`."""
    size = float(num_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            # Above 100 whole numbers: with three figures 1,000 MiB would be written 1e+03.
            return f"{size:.0f} {unit}" if unit == "B" or abs(size) >= 100 else f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB" if abs(size) < 100 else f"{size:,.0f} TiB"


def parse_rate(text: str) -> float:
    """Read the rate of a network in bits a second, such as "10Gbit" or "400 Mbit", in decimal units; returns bytes.

    Raises:
        ValueError: the text is no such rate, or 0.
    """
    match = _RATE.fullmatch(text)
    if match is None or not float(match[1]):
        raise ValueError(f'expected bits a second with their unit, such as "10Gbit", found "{text:.40}"')
    return float(match[1]) * _DECIMAL[match[2].lower()] / 8


def format_rate(rate: float) -> str:
    """Write bytes a second in bits, in decimal units with three significant figures: `10 Gbit/s`."""
    bits = rate * 8
    for unit in ("", "k", "M", "G"):
        if bits < 999.5:
            return f"{bits:.3g} {unit}bit/s"
        bits /= 1000
    return f"{bits:,.3g} Tbit/s" if bits < 999.5 else f"{bits:,.0f} Tbit/s"


def format_flops(flops: float) -> str:
    """Write a number of floating-point operations in decimal units with three significant figures: `1.21 TFLOP`."""
    for unit in ("", "k", "M", "G", "T"):
        if flops < 999.5:
            return f"{flops:.3g} {unit}FLOP"
        flops /= 1000
    return f"{flops:,.3g} PFLOP" if flops < 999.5 else f"{flops:,.0f} PFLOP"


def format_names(names: Sequence[object], limit: int) -> str:
    """Write the first `limit` names, and how many more there are: `a, b and 1,024 more`."""
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(map(str, names[:limit])) + more


def format_seconds(seconds: float) -> str:
    """Write a duration: `8.1 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"

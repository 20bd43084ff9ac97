"""Sizes, rates and durations: what is read, what is refused, what is written."""

import pytest

from regstream.units import format_bytes, format_rate, format_seconds, parse_bytes, parse_rate


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("0B", 0),
        ("1024 b", 1024),
        ("7 B", 7),
        ("8GiB", 8 * 2**30),
        ("8gib", 8 * 2**30),
        ("8Gi", 8 * 2**30),
        ("500 MB", 500 * 10**6),
        ("500m", 500 * 10**6),
        (" 1.5 KiB ", 1536),
        ("2TB", 2 * 10**12),
        ("2TiB", 2 * 2**40),
    ],
)
def test_a_size_is_read_in_decimal_and_in_binary_units(text: str, num_bytes: int) -> None:
    assert parse_bytes(text) == num_bytes


@pytest.mark.parametrize(
    "text", ["", "GiB", "lots", "-1", "1e9", "1,5GiB", "8 PiB", "8GiBB", "0x10", "1.GiB", "nan", "8", "1024", "0", "i"]
)
def test_what_is_no_size_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size with its unit"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (5_036_000_000, "4.69 GiB"),
        (-5_036_000_000, "-4.69 GiB"),
        (1000 * 2**20, "1000 MiB"),
        (1023.4 * 2**20, "1023 MiB"),
        (99.96 * 2**10, "100 KiB"),
        (3 * 2**40, "3 TiB"),
        (5000 * 2**40, "5,000 TiB"),
    ],
)
def test_a_size_is_written_with_three_figures_and_never_with_an_exponent(num_bytes: float, text: str) -> None:
    assert format_bytes(num_bytes) == text


@pytest.mark.parametrize("num_bytes", [0, 1, 999, 1024, 8 * 2**30, 1000 * 2**30, 123 * 2**40])
def test_what_is_written_is_read_again_within_its_figures(num_bytes: int) -> None:
    assert parse_bytes(format_bytes(num_bytes)) == pytest.approx(num_bytes, rel=0.01)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (8.14, "8.1 s"),
        (59.9, "59.9 s"),
        (59.97, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (7800, "2 h 10 min"),
    ],
)
def test_a_duration_is_written_in_the_units_a_person_would_choose(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("text", "rate", "written"),
    [
        ("10Gbit", 1.25e9, "10 Gbit/s"),
        ("400 mbit", 5e7, "400 Mbit/s"),
        ("2.5Gbit", 3.125e8, "2.5 Gbit/s"),
        ("1Tbit", 1.25e11, "1 Tbit/s"),
        ("8kbit", 1e3, "8 kbit/s"),
    ],
)
def test_a_rate_is_of_bits(text: str, rate: float, written: str) -> None:
    assert parse_rate(text) == rate
    assert format_rate(rate) == written


@pytest.mark.parametrize("text", ["", "10", "10GB", "10GiB", "Gbit", "0Gbit", "-1Gbit", "10Gibit", "10Gbit/s", "10bit"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected bits a second"):
        parse_rate(text)

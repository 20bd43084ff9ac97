"""Every key of the schema says what is expected of it and what it does."""

import pytest

from regstream.manifest.keys import Key, key_of, keys_of, tables

KEYS = [(header, key) for header, _, table in tables() for key in keys_of(table)]


@pytest.mark.parametrize(("header", "key"), KEYS, ids=[f"{header} {key.name}" for header, key in KEYS])
def test_a_key_is_described(header: str, key: Key) -> None:
    assert key.expected != "another value"
    assert key.meaning
    assert key.meaning == key.meaning.strip().removesuffix(".")
    assert "default" not in key.expected + key.meaning
    if key.choices:
        assert all(f'"{choice}"' in key.expected for choice in key.choices)


@pytest.mark.parametrize("header", [header for header, _, _ in tables()])
def test_a_table_is_described(header: str) -> None:
    [field] = [field for other, field, _ in tables() if other == header]
    described = key_of(header, field)
    assert "table" in described.expected
    assert described.meaning


def test_defaults_are_in_toml_or_in_words() -> None:
    defaults = {f"{header} {key.name}": key.default for header, key in KEYS}
    assert defaults["[merge] alpha"] == "0.95"
    assert defaults["[merge.others] vocabulary"] == '"same"'
    assert defaults["[candidates.calibration] rows"] == "all"
    assert defaults["[merge] output"] == ""

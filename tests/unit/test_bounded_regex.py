"""Regular expressions do what `re` does, and end."""

import re
import time

import pytest

from regstream.errors import InputError
from regstream.manifest.bounded_regex import check_regex, starts_with, substitute


@pytest.mark.parametrize("pattern", [r"(.*\.)?(q_proj)$", r"layers\.\d{1,2}\.", "[", "", r"^(a|b)*$", "x"])
@pytest.mark.parametrize("name", ["model.layers.11.self_attn.q_proj", "layers.3.x", "", "aab"])
def test_matches_are_those_of_re(pattern: str, name: str) -> None:
    if pattern == "[":
        with pytest.raises(ValueError, match="not a regular expression"):
            check_regex(pattern)
        return
    assert starts_with(pattern, name) == (re.match(pattern, name) is not None)
    assert substitute(pattern, "<>", name) == re.sub(pattern, "<>", name)


def test_one_that_backtracks_without_end_is_given_up() -> None:
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"takes more than 0.1 s"):
        starts_with("(a|aa)+$", "a" * 100 + "!")
    assert time.monotonic() - begun < 8


@pytest.mark.parametrize("pattern", ["((a{65535}){65535}){65535}", "a" * 2000, "(" * 500])
def test_one_too_large_to_compile_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="regular expression"):
        check_regex(pattern)


def test_a_name_does_not_grow_without_end() -> None:
    with pytest.raises(InputError, match="into one of 19,980 characters"):
        substitute("a", "a" * 999, "a" * 20)

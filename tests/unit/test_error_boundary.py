"""Whatever a library raises on a user's file is one line; what is no fault of the file passes."""

import errno

import pytest
from tokenizers import Tokenizer

from regstream.errors import InputError, Interrupted, error_boundary


class _Odd(Exception):
    pass


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (ValueError("\n  no number\nmore"), "no number"),
        (KeyError("r"), "KeyError: 'r'"),
        (_Odd(), "_Odd"),
        (RecursionError("maximum depth"), "maximum depth"),
        (OSError(errno.EACCES, "Permission denied", "/x"), "Permission denied"),
        (TypeError("a\x1b[31mb"), "TypeError: a [31mb"),
    ],
)
def test_any_exception_becomes_one_line(raised: Exception, reason: str) -> None:
    with pytest.raises(InputError) as refused, error_boundary("a/config.json"):
        raise raised
    assert str(refused.value) == f"a/config.json: {reason}"


def test_a_reason_is_cut() -> None:
    with pytest.raises(InputError) as refused, error_boundary("file"):
        raise ValueError("x" * 10_000_000)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    "raised",
    [
        KeyboardInterrupt(),
        MemoryError(),
        Interrupted("at a safe point"),
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_what_is_no_fault_of_the_input_passes(raised: BaseException) -> None:
    with pytest.raises(type(raised)) as passed, error_boundary("file"):
        raise raised
    assert passed.value is raised


def test_a_panic_of_rust_is_a_line() -> None:
    tokenizer = Tokenizer.from_str(
        '{"version":"1.0","added_tokens":[],"model":{"type":"BPE","vocab":{"a":0},"merges":[]},'
        '"normalizer":null,"pre_tokenizer":null,"decoder":null,'
        '"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"[X]","type_id":0}}],'
        '"pair":[],"special_tokens":{}},"truncation":null,"padding":null}'
    )
    with pytest.raises(InputError, match=r"^tokenizer\.json: PanicException"):  # noqa: SIM117
        with error_boundary("tokenizer.json"):
            tokenizer.encode("a")

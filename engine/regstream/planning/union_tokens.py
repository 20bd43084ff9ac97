"""Which tokens the union of tokenizers has beside the base's, and which tokenizers have no union."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from regstream.data.tokenizer_files import Tokens
from regstream.errors import InputError

#: Of the tokens of two vocabularies: where more are in one only, they are of two tokenizers.
_MOST_DIFFERING = 0.01
_MAX_NAMES = 3


class CandidateTokens(NamedTuple):
    """A candidate's tokens: those that its rows of embeddings stand for, and of the tokenizer beside its adapter."""

    label: str
    of_rows: Tokens
    own: Tokens
    num_rows: int


def union_tokens(
    base: Tokens, candidates: Iterable[CandidateTokens], warn: Callable[[str], None]
) -> dict[str, Mapping[str, bool]]:
    """The attributes of the tokens that candidates added and the base lacks, in order of candidates and their ids.

    Raises:
        InputError: a candidate's vocabulary is not the base's.
    """
    found: dict[str, Mapping[str, bool]] = {}
    for label, of_rows, own, num_rows in candidates:
        if left_out := _check_vocabulary(label, base, of_rows):
            reason = "the base's vocabulary lacks them, and they are not among the added tokens"
            warn(f"{label}: tokens are left out of the union: {list_tokens(left_out)}: {reason}")
        for token, attributes in of_rows.added.items():
            if token not in base.ids and of_rows.ids[token] < num_rows:
                found.setdefault(token, attributes)
        added = [*of_rows.added, *own.added]
        if rowless := [t for t in dict.fromkeys(added) if t not in base.ids and not _has_row(t, of_rows, num_rows)]:
            reason = f"its embeddings, of {num_rows:,} rows, have none for them"
            warn(f"{label}: added tokens are left out of the union: {list_tokens(rowless)}: {reason}")
    return found


def _has_row(token: str, tokens: Tokens, num_rows: int) -> bool:
    return tokens.ids.get(token, num_rows) < num_rows


def _check_vocabulary(label: str, base: Tokens, tokens: Tokens) -> list[str]:
    """The tokens of a candidate's vocabulary, without added ones, that the base lacks.

    Raises:
        InputError: they are many, or the base has many that the candidate lacks.
    """
    if tokens is base:
        return []
    own, others = (each.ids.keys() - each.added.keys() for each in (tokens, base))
    lacking, gone = sorted(own - base.ids.keys()), others - tokens.ids.keys()
    if max(len(lacking), len(gone)) > _MOST_DIFFERING * max(len(own), len(others)):
        raise InputError(
            f'{label}: tokenizer = "union" joins tokenizers of one vocabulary with different added tokens, and'
            f" {len(lacking):,} of its {len(own):,} tokens are not in the base's vocabulary, which has"
            f" {len(gone):,} of {len(others):,} that it lacks; remove the candidate, or tokenizer"
        )
    return lacking


def list_tokens(tokens: Sequence[str]) -> str:
    """Some of them, for a message."""
    return ", ".join(map(repr, tokens[:_MAX_NAMES])) + (f" … ({len(tokens):,})" if len(tokens) > _MAX_NAMES else "")

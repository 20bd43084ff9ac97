"""Token ids of a candidate's tokenizer as those of the result's."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from regstream.data.row_checks import place_of_row
from regstream.data.tokens import TokenIds
from regstream.errors import InputError

_LACKING = -1


class IdMap:
    """Maps rows of token ids by the tokens that they stand for: `own` and `result` are ids by token."""

    def __init__(self, own: Mapping[str, int], result: Mapping[str, int]) -> None:
        self._tokens = {index: token for token, index in own.items()}
        self._ids = np.full(max(self._tokens, default=-1) + 1, _LACKING, dtype=np.int32)
        for token, index in own.items():
            self._ids[index] = result.get(token, _LACKING)

    def refuse_moved(self, path: Path) -> None:
        """Refuse a file of ids that are read as they are.

        Raises:
            InputError: a token has another id in the result.
        """
        if moved := [token for index, token in self._tokens.items() if self._ids[index] != index]:
            raise InputError(
                f"{path}: holds token ids beside other inputs, and {len(moved):,} tokens, such as {moved[0]!r}, have"
                " other ids in the result or none; choose a tokenizer in which they have these"
            )

    def __call__(self, where: str, ids: TokenIds) -> TokenIds:
        """The ids of the result's tokenizer.

        Raises:
            InputError: an id is no token, or a token that the result lacks; `where` names the row.
        """
        if len(unknown := ids[(ids < 0) | (ids >= len(self._ids))]):
            raise InputError(f"{where}: token id {unknown[0]} is no token of the candidate's tokenizer")
        mapped: TokenIds = self._ids[ids]
        if len(lost := ids[mapped == _LACKING]):
            token = self._tokens.get(int(lost[0]))
            what = "is no token" if token is None else f"is {token!r}, which the result lacks"
            raise InputError(f"{where}: token id {lost[0]} {what}")
        return mapped


def map_rows(id_map: IdMap | None, path: Path, rows: list[tuple[str, TokenIds]]) -> list[tuple[str, TokenIds]]:
    """Rows of a file, with their locations, in the result's ids; without a map as they are. Raises as a map does."""
    return rows if id_map is None else [(where, id_map(place_of_row(path, where), ids)) for where, ids in rows]

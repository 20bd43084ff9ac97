"""Presents base and candidates in the result's vocabulary: rows of embeddings and heads by the tokens they stand for.

Shape suffixes: V rows of the result.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regstream.checkpoint.adapted_checkpoint import AdaptedCheckpoint
from regstream.checkpoint.checkpoint import Checkpoint
from regstream.checkpoint.header import TensorSpec
from regstream.checkpoint.reader import TensorReader
from regstream.checkpoint.row_map import LACKING, MeanRow, RowMap, RowSource, is_row_of_tokens
from regstream.data.tokenizer_files import Tokens
from regstream.errors import InputError
from regstream.manifest.rule_table import Setting
from regstream.manifest.rules import match_rule
from regstream.manifest.schema import Manifest
from regstream.manifest.shares import NEGLIGIBLE, shares
from regstream.manifest.tokenizer_keys import reads_tokenizers
from regstream.methods.by_block import value_at
from regstream.models.config.model_sizes import vocab_size
from regstream.models.vocabulary import config_with_vocab_size, vocabulary_parameters
from regstream.planning.result_tokenizer import ResultTokenizer, make_tokenizer
from regstream.planning.union_tokens import list_tokens
from regstream.validation.compatibility import check_vocabulary_rows
from regstream.validation.summaries import merge_warnings
from regstream.validation.token_ids import with_token_ids

_Rows = NDArray[np.int64]


@dataclass(frozen=True)
class _Owner:
    """A checkpoint's rows of one tensor: where they are in a file, and which of them each row of the result is."""

    checkpoint: Checkpoint
    reader: TensorReader
    name: str
    own_V: _Rows
    share: float

    @cached_property
    def lacks_V(self) -> NDArray[np.bool_]:
        """Which rows it lacks."""
        lacks_V: NDArray[np.bool_] = self.own_V == LACKING
        return lacks_V

    @cached_property
    def is_in_place(self) -> bool:
        """Whether its rows are the result's."""
        num_rows = self.reader.tensors[self.name].shape[0]
        return len(self.own_V) == num_rows and np.array_equal(self.own_V, np.arange(num_rows))

    def source(self, rows: _Rows) -> RowSource:
        """Of these rows of the result."""
        own = {int(row): int(self.own_V[row]) for row in rows}
        first, last = min(own.values()), max(own.values()) + 1
        spec = self.reader.tensors[self.name]
        size = spec.num_bytes // spec.shape[0]
        part = replace(
            spec, shape=(last - first, *spec.shape[1:]), begin=spec.begin + first * size, end=spec.begin + last * size
        )
        reader = TensorReader(self.checkpoint.label, {self.name: part}, self.reader.source)
        return RowSource(reader, self.name, {row: index - first for row, index in own.items()}, self.share)


def settle_vocabulary(
    manifest: Manifest, base: Checkpoint, candidates: Sequence[Checkpoint], warn: Callable[[str], None]
) -> ResultTokenizer:
    """The result's tokenizer. Every checkpoint is read in its vocabulary from here on; the base's config says its size.

    Raises:
        InputError: a tokenizer or template cannot be used; an adapter changes rows that move; a candidate's rows do not
            fit the base's; or the model has no vocabulary.
    """
    merge, names = manifest.merge, frozenset[str]()
    if reads_tokenizers(merge) or merge.pad_to_multiple_of is not None:
        names = vocabulary_parameters(base.architecture, base.model_config)
        if not names:
            key = "tokenizer" if reads_tokenizers(merge) else "pad_to_multiple_of"
            raise InputError(f"[merge] {key}: {base.architecture.model_class} has no vocabulary; remove the key")
    lines, num_rows = list[str](), [_num_rows(candidate, names) for candidate in candidates]
    tokenizer = make_tokenizer(manifest, base, candidates, num_rows, lines.append)
    if names:
        lines += _Presentation(manifest, base, candidates, tokenizer, names).present()
    for line in merge_warnings(lines, [checkpoint.label for checkpoint in (base, *candidates)]):
        warn(line)
    return tokenizer


def _num_rows(checkpoint: Checkpoint, names: Collection[str]) -> int:
    """The rows of a checkpoint's embeddings."""
    shapes = (checkpoint.tensors[name].shape for name in names if name in checkpoint.tensors)
    return min((shape[0] for shape in shapes if not is_row_of_tokens(shape)), default=0)


@dataclass(frozen=True)
class _Presentation:
    """What is presented: the tensors of these names, of base and candidates."""

    manifest: Manifest
    base: Checkpoint
    candidates: Sequence[Checkpoint]
    tokenizer: ResultTokenizer
    names: Collection[str]

    def present(self) -> Iterator[str]:
        """Present every tensor, and yield warnings."""
        num_rows, lines = self._result_rows(), list[str]()
        for name in sorted(self.names):
            owners = list(self._owners(name, num_rows, lines))
            if owners:
                _present(name, owners)
                lines += _rowless(owners, self.tokenizer)
        yield from dict.fromkeys(lines)
        config = config_with_vocab_size(self.base.config, self.base.model_config, num_rows)
        if self._source is not None and self.tokenizer.base is not None and self.tokenizer.tokens is not None:
            before, now = self.tokenizer.base.ids, self.tokenizer.tokens.ids
            config = with_token_ids(config, self._source.config, before, now)
        self.base.override_config(**config)
        if vocab_size(self.base.model_config) != num_rows:
            raise InputError(f"{self.base.label}: config.json takes no vocabulary of {num_rows:,} rows")

    @property
    def _source(self) -> Checkpoint | None:
        """The candidate whose tokenizer the result has."""
        names, tokenizer = self.manifest.candidate_names, self.manifest.merge.tokenizer
        return self.candidates[names.index(tokenizer)] if tokenizer in names else None

    def _result_rows(self) -> int:
        """The rows of the result's embeddings."""
        num_rows = vocab_size((self._source or self.base).model_config)
        if self._source is None and self.tokenizer.tokens is not None:
            num_rows = max(num_rows, *(index + 1 for index in self.tokenizer.tokens.ids.values()))
        multiple = self.manifest.merge.pad_to_multiple_of or 1
        return -(-num_rows // multiple) * multiple

    def _owners(self, name: str, num_rows: int, lines: list[str]) -> Iterator[_Owner]:
        """The checkpoints that have a tensor, the base first; adds warnings of rows that are not read to `lines`."""
        tokenizer, others, base_rows = self.tokenizer, self.manifest.merge.others, vocab_size(self.base.model_config)
        checkpoints = (self.base, *self.candidates)
        tokens = (tokenizer.base, *tokenizer.candidates) if tokenizer.tokens else (None,) * len(checkpoints)
        for checkpoint, own, share in zip(checkpoints, tokens, (0.0, *self._shares(name)), strict=True):
            stored = name if name in checkpoint.tensors else _tied_source(checkpoint, self.names)
            if stored is None:
                continue
            reader = _plain_reader(checkpoint, stored)
            own_rows = reader.tensors[stored].shape[0]
            if tokenizer.tokens is not None and own is not None:
                rows = _by_tokens(tokenizer.tokens, own, num_rows, own_rows)
            else:
                if checkpoint is not self.base and name in checkpoint.tensors:
                    lines += check_vocabulary_rows(checkpoint, name, own_rows, base_rows, others)
                rows = _in_place(num_rows, min(own_rows, base_rows))
            yield _Owner(checkpoint, reader, stored, rows, share)

    def _shares(self, name: str) -> tuple[float, ...]:
        """What weighs the candidates' rows of a tensor; one that weighs nothing may alone have a token."""
        rules, weights = [rule for rule in self.manifest.rules if rule.blocks is None], list[float]()
        for candidate in self.manifest.candidates:
            rule = match_rule(rules, name, None, 0, setting := Setting("weight", candidate.name))
            given: Any = candidate.weight if rule is None else rule.settings[setting]
            weights.append(value_at(given, 0.0))  # what no block holds takes a list's first
        least = NEGLIGIBLE * (max(weights) or 1.0)
        return shares([weight or least for weight in weights])


def _present(name: str, owners: Sequence[_Owner]) -> None:
    """Present a tensor of all checkpoints that have it under its own name, unless all have it as the result does.

    Raises:
        InputError: an adapter changes it.
    """
    if all(owner.is_in_place for owner in owners):
        return
    by_candidates = np.zeros(len(owners[0].own_V), dtype=bool)
    for owner in owners:
        if name in owner.checkpoint.adapted_names:
            raise InputError(
                f"{owner.checkpoint.label}: its adapter changes {name}, whose rows the result has in another order or"
                " number; merge the adapter into its model first, or remove tokenizer and pad_to_multiple_of"
            )
        by_candidates |= ~owner.lacks_V & (owner.share > 0)
    otherwise = MeanRow(owners[0].reader, owners[0].name)
    for owner in owners:
        if name in owner.checkpoint.tensors and not owner.is_in_place:
            # The base's rows are only for what no candidate has.
            had = ((other, ~other.lacks_V & (True if other.share else ~by_candidates)) for other in owners)
            wanted = ((other, np.flatnonzero(owner.lacks_V & there_V)) for other, there_V in had)
            sources = [other.source(rows) for other, rows in wanted if len(rows)]
            stored = _stored_shape(owner.checkpoint.tensors[name])
            owner.checkpoint.present_rows({name: RowMap(stored, owner.own_V, sources, otherwise)})


def _rowless(owners: Sequence[_Owner], tokenizer: ResultTokenizer) -> Iterator[str]:
    """A warning of tokens that no checkpoint has rows for."""
    nobody_V = np.logical_and.reduce([owner.lacks_V for owner in owners])
    tokens = {} if tokenizer.tokens is None else tokenizer.tokens.ids
    if names := [token for token, index in tokens.items() if index < len(nobody_V) and nobody_V[index]]:
        yield f"tokenizer: no checkpoint has rows for {list_tokens(names)}; theirs are the mean of the base's"


def _by_tokens(result: Tokens, own: Tokens, num_rows: int, own_rows: int) -> _Rows:
    """Which of a checkpoint's rows each row of the result is: by token, else in place where neither has a token."""
    rows, taken = np.full(num_rows, LACKING, dtype=np.int64), np.zeros(max(num_rows, own_rows), dtype=bool)
    for index in (*result.ids.values(), *own.ids.values()):
        if index < len(taken):
            taken[index] = True
    free = np.flatnonzero(~taken[: min(num_rows, own_rows)])
    rows[free] = free
    for token, index in result.ids.items():
        place = own.ids.get(token, own_rows)
        if index < num_rows and place < own_rows:
            rows[index] = place
    return rows


def _in_place(num_rows: int, own_rows: int) -> _Rows:
    rows = np.arange(num_rows, dtype=np.int64)
    rows[own_rows:] = LACKING
    return rows


def _plain_reader(checkpoint: Checkpoint, name: str) -> TensorReader:
    """A reader of a tensor as it is in the file, without an adapter, a row for each token."""
    model = checkpoint.model if isinstance(checkpoint, AdaptedCheckpoint) else checkpoint
    spec = model.tensors[name]
    shape = _stored_shape(spec)
    plain = replace(spec, shape=shape[1:] if is_row_of_tokens(shape) else shape, rows=None)
    return TensorReader(checkpoint.label, {name: plain}, model.source)


def _stored_shape(spec: TensorSpec) -> tuple[int, ...]:
    """The shape in the file: without a base, the first candidate is in its place too, and presented already."""
    return spec.shape if spec.rows is None else spec.rows.stored


def _tied_source(checkpoint: Checkpoint, names: Collection[str]) -> str | None:
    """The tensor that a checkpoint holds in place of one that it ties to the embeddings; None where it ties none."""
    if not getattr(checkpoint.model_config, "tie_word_embeddings", False):
        return None
    return next((n for n in sorted(names) if n in checkpoint.tensors and len(checkpoint.tensors[n].shape) > 1), None)

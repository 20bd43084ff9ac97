"""The tokenizer and the chat template of a result, in a folder with all its files beside the weights."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from regstream.checkpoint.adapted_checkpoint import AdaptedCheckpoint
from regstream.checkpoint.auxiliary_names import GENERATION_CONFIG, TEMPLATE_PATTERNS, TOKENIZER_PATTERNS
from regstream.checkpoint.checkpoint import Checkpoint
from regstream.data.chat_templates import DEFAULT, read_templates, write_templates
from regstream.data.id_map import IdMap
from regstream.data.tokenizer_files import Tokens, read_tokens, write_with_tokens
from regstream.errors import InputError, label_boundary, os_error_boundary
from regstream.manifest.schema import Manifest, Merge
from regstream.manifest.tokenizer_keys import reads_tokenizers, template_source
from regstream.manifest.value_types import BASE, UNION
from regstream.planning.union_tokens import CandidateTokens, union_tokens
from regstream.storage import digests
from regstream.storage.json_file import dump_json, read_json_object
from regstream.validation.auxiliary_files import auxiliary_files
from regstream.validation.token_ids import with_token_ids

Warn = Callable[[str], None]
_ADDED_TOKENS = "added_tokens.json"
_TEMPLATE = "chat template"


@dataclass(frozen=True, kw_only=True)
class ResultTokenizer:
    """What a result has of a tokenizer. `folder` has the files that it gets; rows of text go through them.

    `tokens` are None where the vocabulary is the base's; else `base` and `candidates` have those of each checkpoint,
    by which rows of vocabulary are found. `files` decide all this, by whose they are and by name.
    """

    folder: Path
    tokens: Tokens | None = None
    base: Tokens | None = None
    candidates: Sequence[Tokens] = ()
    id_maps: Sequence[IdMap] = ()
    files: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)
    temporary: TemporaryDirectory[str] | None = None  # which is removed with the last reference to it

    @property
    def added(self) -> list[str]:
        """The tokens that the base's tokenizer lacks, in order of their ids."""
        if self.tokens is None or self.base is None:
            return []
        return sorted(self.tokens.ids.keys() - self.base.ids.keys(), key=self.tokens.ids.__getitem__)

    def id_map(self, candidate: int) -> IdMap | None:
        """From a candidate's token ids to the result's; None where rows of ids are in the base's own."""
        return self.id_maps[candidate] if self.id_maps else None

    def digests(self) -> dict[str, dict[str, str]]:
        """Of its files, as they are now."""
        with os_error_boundary("tokenizer"):
            return {
                owner: {name: digests.sha256(path) for name, path in files.items()}
                for owner, files in self.files.items()
            }


class _Opened(NamedTuple):
    """The base, the candidates by name, and the rows of their embeddings."""

    base: Checkpoint
    by_name: Mapping[str, Checkpoint]
    num_rows: Sequence[int]


def make_tokenizer(
    manifest: Manifest, base: Checkpoint, candidates: Sequence[Checkpoint], num_rows: Sequence[int], warn: Warn
) -> ResultTokenizer:
    """The tokenizer that the manifest asks for; `num_rows` are the candidates' rows of embeddings.

    Raises:
        InputError: a tokenizer or a template is missing or cannot be used, or tokenizers have no union.
    """
    merge = manifest.merge
    if not reads_tokenizers(merge) and template_source(merge) == BASE:
        return ResultTokenizer(folder=base.folder)
    temporary: TemporaryDirectory[str] = TemporaryDirectory(prefix="regstream-tokenizer-")
    folder = Path(temporary.name)
    by_name = dict(zip(manifest.candidate_names, candidates, strict=True))
    _copy(base.folder, auxiliary_files(base.folder), folder)
    made = ResultTokenizer(folder=folder, temporary=temporary, files=_files(merge, base, by_name))
    if reads_tokenizers(merge):
        made = _with_vocabulary(made, merge, _Opened(base, by_name, num_rows), warn)
    _write_template(merge, base, by_name, folder)
    return made


def has_tokenizer(folder: Path) -> bool:
    """Whether there are files of a tokenizer in a folder."""
    return bool(_names(folder, TOKENIZER_PATTERNS))


def own_folder(checkpoint: Checkpoint) -> Path:
    """Where a candidate's own tokenizer is: with its adapter, or else with its model."""
    if isinstance(checkpoint, AdaptedCheckpoint) and has_tokenizer(checkpoint.adapter.folder):
        return checkpoint.adapter.folder
    return checkpoint.folder


def template_folder(checkpoint: Checkpoint) -> Path:
    """Where a candidate's own chat template is."""
    if isinstance(checkpoint, AdaptedCheckpoint) and read_templates(checkpoint.adapter.folder):
        return checkpoint.adapter.folder
    return checkpoint.folder


def _with_vocabulary(made: ResultTokenizer, merge: Merge, opened: _Opened, warn: Warn) -> ResultTokenizer:
    """The same with the tokenizer in its folder, and the tokens of all checkpoints."""
    base, by_name, num_rows = opened
    with label_boundary(base.label):
        known = _KnownTokens(base.folder)
    of_rows = [known.of(c.label, c.folder, warn) for c in by_name.values()]
    own = [known.of(c.label, own_folder(c), warn) for c in by_name.values()]
    if merge.tokenizer == UNION:
        labels = [checkpoint.label for checkpoint in by_name.values()]
        found = map(CandidateTokens, labels, of_rows, own, num_rows)
        added = union_tokens(known.base, found, warn)
        with label_boundary(base.label):
            tokens = write_with_tokens(base.folder, added, made.folder)
        _extend_added_tokens(made.folder, {token: tokens.ids[token] for token in added})
    else:
        assert merge.tokenizer is not None
        source, tokens = by_name[merge.tokenizer], own[list(by_name).index(merge.tokenizer)]
        folder = own_folder(source)
        if not has_tokenizer(folder):
            raise InputError(f'{source.label}: {folder} has no tokenizer for tokenizer = "{merge.tokenizer}"')
        for name in _names(made.folder, (*TOKENIZER_PATTERNS, *TEMPLATE_PATTERNS)):
            (made.folder / name).unlink()
        _copy(folder, _names(folder, TOKENIZER_PATTERNS), made.folder)
        _write_generation_config(made.folder, source, known.base, tokens)
    id_maps = [IdMap(each.ids, tokens.ids) for each in own]
    return replace(made, tokens=tokens, base=known.base, candidates=of_rows, id_maps=id_maps)


class _KnownTokens:
    """The tokens of tokenizers, each loaded once; files that equal the base's have its tokens."""

    def __init__(self, base: Path) -> None:
        self.base = read_tokens(base)
        self._by_files = {_contents(base): self.base}

    def of(self, label: str, folder: Path, warn: Warn) -> Tokens:
        """Those of the tokenizer in a folder; the base's where it has none."""
        if not has_tokenizer(folder):
            warn(f"{label}: no tokenizer in its folder; its tokens are taken for the base's")
            return self.base
        with label_boundary(label):
            contents = _contents(folder)
            if contents not in self._by_files:
                self._by_files[contents] = read_tokens(folder)
        return self._by_files[contents]


def _contents(folder: Path) -> tuple[tuple[str, str], ...]:
    with os_error_boundary(str(folder)):
        return tuple((name, digests.sha256(folder / name)) for name in _names(folder, TOKENIZER_PATTERNS))


def _files(merge: Merge, base: Checkpoint, by_name: Mapping[str, Checkpoint]) -> dict[str, dict[str, Path]]:
    """What decides the tokenizer and the template, by whose it is."""
    template = template_source(merge)
    patterns = (*TOKENIZER_PATTERNS, *TEMPLATE_PATTERNS, GENERATION_CONFIG)
    folders = {BASE: [base.folder]}
    for name, checkpoint in by_name.items():
        if reads_tokenizers(merge) or name == template:
            folders[name] = list({checkpoint.folder, own_folder(checkpoint), template_folder(checkpoint)})
    found = {
        owner: {name: folder / name for folder in sorted(each) for name in _names(folder, patterns)}
        for owner, each in folders.items()
    }
    return found | ({_TEMPLATE: {template.name: template}} if isinstance(template, Path) else {})


def _write_template(merge: Merge, base: Checkpoint, by_name: Mapping[str, Checkpoint], folder: Path) -> None:
    source = template_source(merge)
    if isinstance(source, Path):
        with os_error_boundary(f"chat_template: {source}"):
            content = source.read_bytes()
        try:
            templates = {DEFAULT: content.decode()}
        except UnicodeDecodeError as error:
            raise InputError(f"chat_template: {source}: no UTF-8: {error.reason} at byte {error.start}") from error
        where = str(source)
    else:
        checkpoint = base if source == BASE else by_name[source]
        templates, where = read_templates(template_folder(checkpoint)), checkpoint.label
    if merge.chat_template is not None and not any(map(str.strip, templates.values())):
        raise InputError(f'chat_template = "{merge.chat_template}": {where} has no chat template')
    write_templates(folder, templates)


def _write_generation_config(folder: Path, source: Checkpoint, base: Tokens, tokens: Tokens) -> None:
    """Have the ids of the tokenizer's source in the settings of generation."""
    file, own = folder / GENERATION_CONFIG, source.folder / GENERATION_CONFIG
    if file.is_file():
        of_source = read_json_object(own, "a generation config") if own.is_file() else source.config
        settings = read_json_object(file, "a generation config")
        file.write_bytes(dump_json(with_token_ids(settings, of_source, base.ids, tokens.ids)))


def _extend_added_tokens(folder: Path, added: Mapping[str, int]) -> None:
    """Name added tokens also in a file that transformers reads and no longer writes."""
    file = folder / _ADDED_TOKENS
    if added and file.is_file():
        file.write_bytes(dump_json({**json.loads(file.read_bytes()), **added}))


def _names(folder: Path, patterns: Sequence[str]) -> list[str]:
    """The names of the files in a folder that a pattern matches, sorted."""
    found = {path.relative_to(folder).as_posix() for glob in patterns for path in folder.glob(glob) if path.is_file()}
    return sorted(found)


def _copy(source: Path, names: Sequence[str], into: Path) -> None:
    for name in names:
        (into / name).parent.mkdir(exist_ok=True)
        with os_error_boundary(f"{source / name}"):
            shutil.copyfile(source / name, into / name)

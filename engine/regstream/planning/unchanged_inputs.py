"""The files on this machine that a result is made from: proof that none has changed, found without torch.

The digest of a checkpoint covers every file in its folder, not only those that are read, so that an added adapter,
index or tokenizer file counts as a change too. It covers their names without revealing them.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from mmap import ACCESS_READ, mmap
from pathlib import Path

from regstream.checkpoint.auxiliary_names import AUXILIARY_FOLDERS
from regstream.data.chat_messages import MESSAGES
from regstream.manifest.named_models import template_model
from regstream.manifest.references import ModelRef, is_commit
from regstream.manifest.schema import Calibration, Manifest
from regstream.manifest.tokenizer_keys import reads_tokenizers, template_source
from regstream.storage import digests
from regstream.storage.file_status import FileStatus, file_status

#: By path; None for all: not readable.
Signatures = Mapping[Path, FileStatus] | None

_BASE = "base"
_WEIGHTS = ".safetensors"
#: Files of rows whose images are in files of their own.
_NAMING_IMAGES = (".jsonl", ".json", ".csv")
#: Files that are read whole of any checkpoint; of the base, those of its tokenizer and processor are too,
#: and of others where they decide the tokenizer or the chat template of the result.
_DESCRIPTIONS = ("config.json", "adapter_config.json", "model.safetensors.index.json")
#: A file of a tokenizer may not be larger.
_MAX_SETTINGS_BYTES = 256 << 20
#: Hashing more takes longer than planning the merge.
_MAX_ROWS_BYTES = 1 << 30


class _Unprovable(Exception):
    """An input may change without a change of what its digest would cover."""


def read_signatures(manifest: Manifest) -> Signatures:
    """The signatures of all local input files, which tell later whether one was touched since."""
    try:
        return {path: file_status(path) for path in local_files(manifest)}
    except (_Unprovable, OSError):
        return None


def input_digests(manifest: Manifest) -> Mapping[str, str] | None:
    """A digest of each input by its label; None where an input may change unseen, or cannot be read.

    Branches and tags of the hub may move, folders of images may gain some, images that rows name may change, and large
    sets of rows take too long.
    """
    try:
        is_read = template_source(manifest.merge) != _BASE or reads_tokenizers(manifest.merge)
        models = {
            label: _model_digest(reference, reads_settings=is_read or label == _BASE)
            for label, reference in _models(manifest).items()
        }
        sets = {label: _rows_digest(rows) for label, rows in _calibration_sets(manifest).items()}
        return models | sets | _architecture_digest(manifest) | _template_digest(manifest)
    except (_Unprovable, OSError):
        return None


def unchanged_input_digests(manifest: Manifest, since: Signatures) -> Mapping[str, str] | None:
    """The digests of inputs that were not touched since their signatures were read; None where some were."""
    found = input_digests(manifest)
    return found if since is not None and read_signatures(manifest) == since else None


def local_files(manifest: Manifest) -> Iterator[Path]:
    """The files of all local checkpoints, adapters and calibration sets, and a chat template's.

    Raises:
        OSError: a folder or a file is missing or cannot be read.
    """
    for reference in _models(manifest).values():
        if reference.folder is not None:
            yield from _files_in(reference.folder)
    if isinstance(template := template_source(manifest.merge), Path):
        yield template
    yield from (rows.path for rows in _calibration_sets(manifest).values() if rows.path is not None)


def _models(manifest: Manifest) -> dict[str, ModelRef]:
    models = {_BASE: template_model(manifest)}
    if manifest.merge.prior_model is not None:
        models["prior model"] = manifest.merge.prior_model
    for candidate in manifest.candidates:
        for kind, reference in (("model", candidate.model), ("adapter", candidate.adapter)):
            if reference is not None:
                models[f"{kind} of {candidate.name}"] = reference
    return models


def _calibration_sets(manifest: Manifest) -> dict[str, Calibration]:
    candidates = manifest.candidates if manifest.merge.regresses else ()
    return {f"calibration of {c.name}": c.calibration for c in candidates if c.calibration is not None}


def _model_digest(reference: ModelRef, *, reads_settings: bool) -> str:
    if reference.folder is None:
        if not is_commit(reference.revision):
            raise _Unprovable
        return str(reference)
    folder = reference.folder
    entries = [
        [path.relative_to(folder).as_posix(), _file_digest(path, reads_settings=reads_settings)]
        for path in _files_in(folder)
    ]
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def _rows_digest(rows: Calibration) -> str:
    if rows.path is None:
        if not is_commit(rows.revision):
            raise _Unprovable
        return json.dumps([rows.dataset, rows.config, rows.split, rows.revision])
    if not rows.path.is_file() or rows.path.stat().st_size > _MAX_ROWS_BYTES:
        raise _Unprovable
    if rows.path.suffix in _NAMING_IMAGES and (rows.images is not None or _may_name_images(rows)):
        raise _Unprovable
    return digests.sha256(rows.path) + rows.path.suffix  # which says how to read it


def _may_name_images(rows: Calibration) -> bool:
    """Whether messages may have parts that are images, in files of their own; errs on the side of yes."""
    if rows.field != MESSAGES or rows.path is None or not rows.path.stat().st_size:
        return False
    with rows.path.open("rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as content:
        return content.find(b'"image') >= 0


def _architecture_digest(manifest: Manifest) -> dict[str, str]:
    """Of the whole table: a plan checks also those keys against the model that do not change the result."""
    table = manifest.architecture
    return {} if table is None else {"architecture": hashlib.sha256(table.model_dump_json().encode()).hexdigest()}


def _template_digest(manifest: Manifest) -> dict[str, str]:
    template = template_source(manifest.merge)
    return {"chat template": digests.sha256(template)} if isinstance(template, Path) else {}


def _file_digest(path: Path, *, reads_settings: bool) -> str:
    is_settings = reads_settings and path.suffix != _WEIGHTS and path.stat().st_size <= _MAX_SETTINGS_BYTES
    return digests.sha256(path) if is_settings or path.name in _DESCRIPTIONS else digests.sample_sha256(path)


def _files_in(folder: Path) -> Iterator[Path]:
    """The files of a checkpoint's folder, and of its folders that hold auxiliary files, in order of their names."""
    for path in sorted(folder.iterdir()):
        if path.is_file():
            yield path
        elif path.is_dir():
            if any(fnmatch(path.name, pattern) for pattern in AUXILIARY_FOLDERS):
                yield from sorted(inner for inner in path.iterdir() if inner.is_file())
        elif path.exists():
            raise _Unprovable  # a pipe, a socket or a device, which a plan refuses

"""Rows of data sets of the hub, sampled once and cached as a parquet file.

From then on they are a file like any other: it has a digest, and a resumed run needs no network for it.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from huggingface_hub import cached_assets_path, constants
from huggingface_hub.utils import WeakFileLock

from regstream.data.alpaca import ALPACA, OPTIONAL_COLUMN
from regstream.data.chat_messages import stored_field
from regstream.data.row_reader import ATTENTION_MASK, INPUT_IDS, field_advice, field_columns
from regstream.errors import InputError, error_boundary
from regstream.events import Listener, ignore_event
from regstream.hub.errors import CLIENT_ERRORS, NOT_CACHED, HubError, hub_error_boundary
from regstream.hub.repository import cache_revision, resolve_commit, warn_if_moved
from regstream.manifest.schema import Calibration

#: Size of the library's shuffle buffer, which it fills from several shards at once.
_SHUFFLE_BUFFER_ROWS = 1000


class DatasetSampler:
    """Samples rows at the pinned commits of data sets. `commits` collects the commit of each one that is sampled."""

    def __init__(self, pinned_commits: Mapping[str, str] | None = None, listener: Listener = ignore_event) -> None:
        self.commits: dict[str, str] = {}
        self._pinned_commits = pinned_commits or {}
        self._listener = listener

    def sample(
        self, calibration: Calibration, field: str, seed: int, label: str = "label", target: str | None = None
    ) -> Path:
        """Return a parquet file of the sampled rows: the columns of `field`, of images and of `target`, and `label`
        where it exists.

        Raises:
            InputError: the data set, configuration, split or column does not exist or cannot be read, or the package
                `datasets` is missing.
        """
        assert calibration.dataset is not None
        commit = self._commit(calibration.dataset, calibration.revision)
        columns = field_columns(field)
        if calibration.images is not None and calibration.images not in columns:
            columns += (calibration.images,)
        columns += tuple(name for name in (field_columns(target) if target else ()) if name not in columns)
        settings = [commit, calibration.config, calibration.split, columns, label, calibration.rows, seed]
        key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]
        name = "-".join(filter(None, (calibration.dataset.replace("/", "-"), calibration.split, key)))
        folder = cached_assets_path("regstream", "rows", calibration.dataset, assets_dir=constants.HF_ASSETS_CACHE)
        file = folder / f"{name}.parquet"
        if file.exists():
            return file
        what = f"data set {calibration.dataset} at {commit[:12]}"
        if constants.HF_HUB_OFFLINE:
            raise HubError(f"{what}: its rows are {NOT_CACHED}")
        from regstream.data.row_writer import write_rows  # with pyarrow, which a data set in the cache may not need

        with _dataset_errors(what), WeakFileLock(file.with_suffix(".lock")):  # other processes may sample the same rows
            if not file.exists() and not write_rows(file, _rows(what, calibration, (*columns, label), commit, seed)):
                raise InputError(f"{what}: no rows")
        return file

    def _commit(self, dataset: str, revision: str | None) -> str:
        name = f"datasets/{dataset}" + (f"@{revision}" if revision else "")
        if name not in self.commits:
            if commit := self._pinned_commits.get(name):
                warn_if_moved(commit, name, dataset, revision, self._listener, kind="dataset")
            else:
                commit = resolve_commit(dataset, revision, kind="dataset")
                cache_revision(dataset, revision, kind="dataset")
            self.commits[name] = commit
        return self.commits[name]


def _rows(
    what: str, calibration: Calibration, columns: Sequence[str], commit: str, seed: int
) -> Iterable[dict[str, Any]]:
    """The sampled rows, read lazily, with these columns; the last, and Alpaca's `input`, may be missing."""
    stream = _stream(what, calibration, commit)
    available = stream.column_names or list(next(iter(stream), {}))
    columns = [stored_field(column, available) for column in columns]
    may_lack = OPTIONAL_COLUMN if calibration.field == ALPACA else None
    for column in columns[:-1]:
        if column not in available and column != may_lack:
            names = ", ".join(available)
            raise InputError(f'{what}: no column "{column}"; there are {names}{field_advice(available)}')
    columns += [ATTENTION_MASK] if INPUT_IDS in columns else []
    # Images stay encoded.
    stream = stream.decode(False).select_columns([name for name in dict.fromkeys(columns) if name in available])
    if calibration.rows is not None:
        stream = stream.reshard().shuffle(seed=seed, buffer_size=_SHUFFLE_BUFFER_ROWS).take(calibration.rows)
    rows: Iterable[dict[str, Any]] = stream
    return rows


def _stream(what: str, calibration: Calibration, commit: str) -> Any:
    try:
        library: Any = import_module("datasets")
    except ImportError as error:
        raise InputError(f'{what}: reading it takes the package datasets: pip install "regstream[datasets]"') from error
    splits = library.load_dataset(calibration.dataset, calibration.config, revision=commit, streaming=True)
    if calibration.split is None and len(splits) == 1:
        return next(iter(splits.values()))
    if calibration.split not in splits:
        problem = f'no split "{calibration.split}"' if calibration.split else "several splits, and none is named"
        raise InputError(f"{what}: {problem}; there are {', '.join(splits)}")
    return splits[calibration.split]


@contextmanager
def _dataset_errors(what: str) -> Iterator[None]:
    """Turn errors of the network and of the library `datasets` into an `InputError`; errors of the disk pass."""
    with hub_error_boundary(what):
        try:
            yield
        except Exception as error:
            is_of_library = type(error).__module__.startswith("datasets.")
            if isinstance(error, CLIENT_ERRORS) and not is_of_library:
                raise
            with error_boundary(what):
                raise

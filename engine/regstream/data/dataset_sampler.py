"""Rows of data sets of the hub: drawn once, by the seed, and kept as a table in the client's cache.

From there on they are a file's rows: their digest is taken alike, and a run that goes on needs no network for them.
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

from regstream.data.messages import stored_field
from regstream.data.row_sources import MASK, TOKENS, columns_of
from regstream.data.row_writer import write_rows
from regstream.errors import InputError, error_boundary
from regstream.events import Listener, ignore
from regstream.hub.errors import CLIENT_ERRORS, HubError, hub_error_boundary
from regstream.hub.repository import cache_revision, resolve_commit, warn_if_moved
from regstream.manifest.schema import Calibration

#: Rows that are held at a time to draw from; the library fills them from several files, or parts of files, at once.
_BUFFER_ROWS = 1000


class DatasetSampler:
    """Draws rows. `commits` holds those of data sets that are settled, and in the end all that were asked for."""

    def __init__(self, settled: Mapping[str, str] | None = None, listener: Listener = ignore) -> None:
        self.commits: dict[str, str] = {}
        self._settled = settled or {}
        self._listener = listener

    def table(self, rows: Calibration, field: str, seed: int, label: str = "label") -> Path:
        """A parquet file of the rows that are asked for: the columns of a field, and labels where there are any.

        Raises:
            InputError: there is no such data set, configuration, split or column, it cannot be read, or the package
                that reads it is missing.
        """
        assert rows.dataset is not None
        commit = self._commit(rows.dataset, rows.revision)
        columns = columns_of(field)
        asked = [commit, rows.config, rows.split, columns, label, rows.rows, seed]
        key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]
        name = "-".join(filter(None, (rows.dataset.replace("/", "-"), rows.split, key)))
        cache = cached_assets_path("regstream", "rows", rows.dataset, assets_dir=constants.HF_ASSETS_CACHE)
        kept = cache / f"{name}.parquet"
        if not kept.exists():
            what = f"data set {rows.dataset} at {commit[:12]}"
            if constants.HF_HUB_OFFLINE:
                raise HubError(f"{what}: its rows were not drawn before, and HF_HUB_OFFLINE keeps off the network")
            with _told(what), WeakFileLock(kept.with_suffix(".lock")):  # whoever else draws these rows waits
                if not kept.exists() and not write_rows(kept, _drawn(what, rows, (*columns, label), commit, seed)):
                    raise InputError(f"{what}: no rows")
        return kept

    def _commit(self, dataset: str, revision: str | None) -> str:
        name = f"datasets/{dataset}" + (f"@{revision}" if revision else "")
        if name not in self.commits:
            settled = self._settled.get(name)
            if settled:
                warn_if_moved(settled, name, dataset, revision, self._listener, kind="dataset")
            else:
                settled = resolve_commit(dataset, revision, kind="dataset")
                cache_revision(dataset, revision, kind="dataset")
            self.commits[name] = settled
        return self.commits[name]


def _drawn(what: str, rows: Calibration, asked: Sequence[str], commit: str, seed: int) -> Iterable[dict[str, Any]]:
    """The rows, as they are read: these columns, of which the last may be lacking."""
    stream = _stream(what, rows, commit)
    columns = stream.column_names or list(next(iter(stream), {}))
    asked = [stored_field(column, columns) for column in asked]
    for column in asked[:-1]:
        if column not in columns:
            raise InputError(f'{what}: no column "{column}"; there are {", ".join(columns)}')
    # Images stay as they are encoded.
    asked += [MASK] if TOKENS in asked else []
    stream = stream.decode(False).select_columns([name for name in dict.fromkeys(asked) if name in columns])
    if rows.rows is not None:
        stream = stream.reshard().shuffle(seed=seed, buffer_size=_BUFFER_ROWS).take(rows.rows)
    drawn: Iterable[dict[str, Any]] = stream
    return drawn


def _stream(what: str, rows: Calibration, commit: str) -> Any:
    """The split, which is read as it is asked for."""
    try:
        library: Any = import_module("datasets")
    except ImportError as error:
        raise InputError(f'{what}: reading it takes the package datasets: pip install "regstream[datasets]"') from error
    splits = library.load_dataset(rows.dataset, rows.config, revision=commit, streaming=True)
    if rows.split is None and len(splits) == 1:
        return next(iter(splits.values()))
    if rows.split not in splits:
        found = f'no split "{rows.split}"' if rows.split else "several splits, and none is named"
        raise InputError(f"{what}: {found}; there are {', '.join(splits)}")
    return splits[rows.split]


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Tell what the library raises, its errors and the network's.

    Raises:
        InputError: in place of them.
        OSError: the disk refused.
    """
    with hub_error_boundary(what):
        try:
            yield
        except Exception as error:
            is_own = type(error).__module__.startswith("datasets.")
            if isinstance(error, CLIENT_ERRORS) and not is_own:
                raise
            with error_boundary(what):
                raise

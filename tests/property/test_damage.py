"""Damaged manifests, indexes, headers, journals: refused or harmless, never a traceback, never a wrong result."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from merging import Merge, make_merge
from regstream.checkpoint.checkpoint import open_checkpoint
from regstream.errors import RegstreamError
from regstream.events import StepCommitted
from regstream.manifest.canonical import canonical_config
from regstream.manifest.read_manifest import read_manifest
from regstream.runtime.scheduler import run
from regstream.storage.journal import Journal

CASES = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
A_FEW = settings(CASES, max_examples=25)


@pytest.fixture(scope="module")
def merge(tmp_path_factory: pytest.TempPathFactory) -> Merge:
    """A small merge with a sharded base."""
    folder = tmp_path_factory.mktemp("merge")
    return make_merge(folder, "llama-tied", candidates=2, layers=2, num_rows=4, sharded=True)


@pytest.fixture(scope="module")
def journal_folder(merge: Merge, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a run that was stopped after two steps."""

    class Stopped(Exception):
        pass

    def stop(event: object) -> None:
        if isinstance(event, StepCommitted) and event.index == 1:
            raise Stopped

    with pytest.raises(Stopped):
        run(merge.plan(), listener=stop)
    return merge.read().workdir


@st.composite
def edits(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Some bytes changed, cut out, doubled or put in, anywhere."""
    place, kind, new = st.floats(0, 1, exclude_max=True), st.integers(0, 4), st.binary(max_size=6)
    places = draw(st.lists(st.tuples(place, kind, new), min_size=1, max_size=3))

    def edit(data: bytes) -> bytes:
        for place, kind, new in places:
            at = int(place * len(data))
            match kind:
                case 0:
                    data = data[:at] + new + data[at + len(new) :]
                case 1:
                    data = data[:at] + data[at + 1 + len(new) :]
                case 2:
                    data = data[: at + 9] + data[at:]
                case 3:
                    data = data[:at] + new + data[at:]
                case _:
                    data = data[:at]
        return data

    return edit


def tried(work: Callable[[], Any], path: Path, edit: Callable[[bytes], bytes]) -> Any:
    """What `work` returns with a file edited, or the text of its error; nothing else may be raised."""
    data = path.read_bytes()
    path.write_bytes(edit(data))
    try:
        return work()
    except RegstreamError as error:
        return str(error)
    finally:
        path.write_bytes(data)


def check_manifest(merge: Merge, edit: Callable[[bytes], bytes]) -> None:
    tried(lambda: canonical_config(read_manifest(merge.manifest)), merge.manifest, edit)


def check_header(merge: Merge, edit: Callable[[bytes], bytes]) -> None:
    shard = sorted(merge.folders.base.glob("*.safetensors"))[1]
    specs = open_checkpoint("base", merge.folders.base).tensors

    def work() -> dict[str, Any]:
        return dict(open_checkpoint("base", merge.folders.base).tensors)

    length = 8 + int.from_bytes(shard.read_bytes()[:8], "little")
    found = tried(work, shard, lambda data: edit(data[:length]) + data[length:])
    # What still opens describes every byte of every file: no overlap, no hole, nothing beyond the end.
    if isinstance(found, dict):
        assert sum(spec.num_bytes for spec in found.values()) <= sum(spec.num_bytes for spec in specs.values())


def check_index(merge: Merge, edit: Callable[[bytes], bytes]) -> None:
    index = merge.folders.base / "model.safetensors.index.json"
    specs = open_checkpoint("base", merge.folders.base).tensors
    found = tried(lambda: open_checkpoint("base", merge.folders.base).tensors, index, edit)
    # An index only says where tensors are; where it is accepted they are the same.
    assert isinstance(found, str) or found == specs


def check_journal(folder: Path, edit: Callable[[bytes], bytes]) -> None:
    path = folder / "journal.jsonl"
    identity = json.loads(path.read_text().splitlines()[0].partition(" ")[2])["identity"]
    committed = Journal.read_committed(folder)
    data = path.read_bytes()
    try:
        found = tried(lambda: Journal.open(folder, identity, ()).committed, path, edit)
    finally:
        path.write_bytes(data)
    # Whatever is believed is a beginning of what was committed.
    assert isinstance(found, str) or found == committed[: len(found)]


@A_FEW
@given(edits())
def test_a_few_manifests(merge: Merge, edit: Callable[[bytes], bytes]) -> None:
    check_manifest(merge, edit)


@A_FEW
@given(edits())
def test_a_few_headers(merge: Merge, edit: Callable[[bytes], bytes]) -> None:
    check_header(merge, edit)


@pytest.mark.slow
@A_FEW
@given(edits())
def test_a_few_indexes(merge: Merge, edit: Callable[[bytes], bytes]) -> None:
    check_index(merge, edit)


@A_FEW
@given(edits())
def test_a_few_journals(journal_folder: Path, edit: Callable[[bytes], bytes]) -> None:
    check_journal(journal_folder, edit)


@pytest.mark.slow
@CASES
@given(edits())
def test_manifests(merge: Merge, edit: Callable[[bytes], bytes]) -> None:
    check_manifest(merge, edit)


@pytest.mark.slow
@CASES
@given(edits())
def test_headers(merge: Merge, edit: Callable[[bytes], bytes]) -> None:
    check_header(merge, edit)


@pytest.mark.slow
@CASES
@given(edits())
def test_indexes(merge: Merge, edit: Callable[[bytes], bytes]) -> None:
    check_index(merge, edit)


@pytest.mark.slow
@CASES
@given(edits())
def test_journals(journal_folder: Path, edit: Callable[[bytes], bytes]) -> None:
    check_journal(journal_folder, edit)

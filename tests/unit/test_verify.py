"""Verification: a sound result passes, and no changed byte of it does."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from merging import Merge, make_merge
from regstream.api import verify
from regstream.errors import InputError
from regstream.output.record import PROVENANCE, read_provenance, write_provenance
from regstream.storage import digests, durable

MEASURED = "regstream.measured.json"  # of this run's clock and gauges: not part of what is vouched for


@pytest.fixture(scope="module")
def merge(tmp_path_factory: pytest.TempPathFactory) -> Merge:
    merge = make_merge(tmp_path_factory.mktemp("verify"), layers=1, hidden=8, candidates=2, num_rows=4)
    merge.run()
    return merge


@pytest.fixture
def copy(merge: Merge, tmp_path: Path) -> Path:
    return Path(shutil.copytree(merge.output, tmp_path / "result"))


def problems(folder: Path) -> str:
    """What is wrong, in one text; a damaged record is refused instead of reported."""
    try:
        return "\n".join(verify(folder).problems)
    except InputError as error:
        return str(error)


def test_a_sound_result_passes(copy: Path) -> None:
    verification = verify(copy)
    assert verification.problems == ()
    files = read_provenance(copy)["files"]
    assert verification.num_files == len(files) == len(list(copy.iterdir())) - 2
    assert verification.num_bytes == sum((copy / name).stat().st_size for name in files)


def test_every_file_but_the_measurements_is_vouched_for(copy: Path) -> None:
    names = {path.name for path in copy.iterdir()}
    assert names - {*read_provenance(copy)["files"]} == {PROVENANCE, MEASURED}


def test_a_flipped_bit_anywhere_in_any_file_is_found(copy: Path) -> None:
    for path in sorted(copy.iterdir()):
        if path.name == MEASURED:
            continue
        content = path.read_bytes()
        for position in sorted({len(content) * part // 6 for part in range(6)} | {len(content) - 1}):
            damaged = bytearray(content)
            damaged[position] ^= 1 << (position % 8)
            path.write_bytes(damaged)
            assert path.name in problems(copy), f"byte {position} of {path.name}"
        path.write_bytes(content)
    assert problems(copy) == ""


def test_a_missing_file_is_found(copy: Path) -> None:
    for path in sorted(copy.iterdir()):
        if path.name == MEASURED:
            continue
        content = path.read_bytes()
        path.unlink()
        assert path.name in problems(copy)
        path.write_bytes(content)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0"])
def test_another_size_is_found_with_both(copy: Path, change: Callable[[bytes], bytes]) -> None:
    shard = next(copy.glob("model-00002*"))
    shard.write_bytes(change(shard.read_bytes()))
    assert "bytes, recorded were" in problems(copy)


def test_a_foreign_shard_is_found(copy: Path) -> None:
    save_file({"a": torch.zeros(1)}, copy / "model-00009-of-00009.safetensors")
    assert "model-00009-of-00009.safetensors: not part of the result" in problems(copy)


def rerecorded(folder: Path, name: str, content: bytes) -> None:
    """Change a file and the record with it, as a bug in the writing would, and not as damage does."""
    durable.write_file(folder / name, content)
    record = read_provenance(folder)
    entry = {"bytes": len(content), "sha256": digests.sha256(folder / name)}
    write_provenance(folder, record, record["files"] | {name: entry})


def changed_tensor(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    shard = folder / "model-00002-of-00003.safetensors"
    tensors = load_file(shard)
    change(tensors)
    save_file(tensors, folder.parent / "changed", metadata={"format": "pt"})
    rerecorded(folder, shard.name, (folder.parent / "changed").read_bytes())


NORM = "model.layers.0.input_layernorm.weight"
INCONSISTENT: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "NaN": (lambda t: t[NORM].fill_(float("nan")), f"tensor {NORM} contains NaN"),
    "missing": (lambda t: t.pop(NORM), f"tensor {NORM}"),
    "another shape": (lambda t: t.update({NORM: torch.zeros(3)}), f"tensor {NORM} has shape"),
    "unknown": (lambda t: t.update({f"{NORM}s": torch.zeros(3)}), f"tensor {NORM}s is not in the model"),
}


@pytest.mark.parametrize("kind", INCONSISTENT)
def test_a_result_that_contradicts_itself_is_found_though_every_digest_fits(copy: Path, kind: str) -> None:
    change, message = INCONSISTENT[kind]
    changed_tensor(copy, change)
    assert message in problems(copy)


def test_an_index_that_forgets_a_tensor_is_found_though_every_digest_fits(copy: Path) -> None:
    name = "model.safetensors.index.json"
    index = json.loads((copy / name).read_text())
    del index["weight_map"][NORM]
    rerecorded(copy, name, json.dumps(index).encode())
    assert f"the index lacks {NORM}" in problems(copy)


def test_a_folder_that_holds_no_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is this the output of a finished run"):
        verify(tmp_path)

"""Stored hidden states: what comes back is what was put in, or it is called damaged."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from regstream.models.batch import Batch
from regstream.storage.hidden_states import CorruptActivations, HiddenStates

BATCHES = (Batch((5, 3)), Batch((2,)), Batch((1, 1)))
TOKENS = [batch.num_tokens for batch in BATCHES]
WIDTH = 6


def batches_of(seed: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch.num_tokens, WIDTH, generator=generator).to(dtype) for batch in BATCHES]


def write(states: HiddenStates, batches: Sequence[Tensor], *, candidate: str = "math", depth: int = 0) -> None:
    with states.write(candidate, depth) as writer:
        for tokens_TD in batches:
            writer.append(tokens_TD)


def chunks(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "zarr.json")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_was_written_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    states, batches = HiddenStates(tmp_path, dtype), batches_of(0, dtype)
    batches[1].zero_()
    batches[0][0, :4] = torch.tensor([float("inf"), float("-inf"), -0.0, 3e-5]).to(dtype)
    write(states, batches)
    for reader in (states, HiddenStates(tmp_path, dtype)):
        read = list(reader.read("math", 0, TOKENS))
        assert [tokens_TD.dtype for tokens_TD in read] == [dtype] * 3
        assert all(torch.equal(*pair) for pair in zip(read, batches, strict=True))


def test_candidates_and_depths_are_kept_apart(tmp_path: Path) -> None:
    states = HiddenStates(tmp_path, torch.float32)
    places = [("math", 0), ("math", 1), ("code", 0)]
    for seed, (candidate, depth) in enumerate(places):
        write(states, batches_of(seed), candidate=candidate, depth=depth)
    for seed, (candidate, depth) in enumerate(places):
        read = states.read(candidate, depth, TOKENS)
        assert all(torch.equal(*pair) for pair in zip(read, batches_of(seed), strict=True))


def test_a_generation_is_rewritten_whole(tmp_path: Path) -> None:
    states = HiddenStates(tmp_path, torch.float32)
    write(states, [*batches_of(0), *batches_of(0)])
    write(states, batches_of(1))
    assert all(torch.equal(*pair) for pair in zip(states.read("math", 0, TOKENS), batches_of(1), strict=True))
    assert len(chunks(tmp_path)) == 3


def read_all(states: HiddenStates) -> None:
    list(states.read("math", 0, TOKENS))


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_missing_chunk_is_damage_and_not_zeros(tmp_path: Path, index: int) -> None:
    states = HiddenStates(tmp_path, torch.float32)
    write(states, batches_of(0))
    chunks(tmp_path)[index].unlink()
    with pytest.raises(CorruptActivations, match=f"0/math/{index}"):
        read_all(states)


def test_a_missing_batch_or_candidate_is_damage(tmp_path: Path) -> None:
    states = HiddenStates(tmp_path, torch.float32)
    with pytest.raises(CorruptActivations, match="0/math/0"):
        read_all(states)
    write(states, batches_of(0)[:2])
    with pytest.raises(CorruptActivations, match="0/math/2"):
        read_all(states)


@pytest.mark.parametrize("position", [0, 0.5, 1])
def test_a_flipped_bit_is_damage(tmp_path: Path, position: float) -> None:
    states = HiddenStates(tmp_path, torch.bfloat16)
    write(states, batches_of(0, torch.bfloat16))
    chunk = chunks(tmp_path)[0]
    data = bytearray(chunk.read_bytes())
    data[int(position * (len(data) - 1))] ^= 0x10
    chunk.write_bytes(data)
    with pytest.raises(CorruptActivations, match="0/math/0"):
        read_all(states)


@pytest.mark.parametrize("size", [0, 1, 50])
def test_a_torn_chunk_is_damage(tmp_path: Path, size: int) -> None:
    states = HiddenStates(tmp_path, torch.float32)
    write(states, batches_of(0))
    chunk = chunks(tmp_path)[0]
    chunk.write_bytes(chunk.read_bytes()[:size])
    with pytest.raises(CorruptActivations, match="0/math/0"):
        read_all(states)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"zarr_format": 3, "node_type": "group"}', b"\xff"])
def test_a_damaged_description_is_damage(tmp_path: Path, content: bytes) -> None:
    states = HiddenStates(tmp_path, torch.float32)
    write(states, batches_of(0))
    (tmp_path / "0" / "math" / "0" / "zarr.json").write_bytes(content)
    with pytest.raises(CorruptActivations, match="0/math/0"):
        read_all(states)


def test_another_number_of_tokens_is_damage(tmp_path: Path) -> None:
    states = HiddenStates(tmp_path, torch.float32)
    write(states, batches_of(0))
    with pytest.raises(CorruptActivations, match=r"8, 6. stored, 9 tokens in float32 expected"):
        list(states.read("math", 0, (9,)))


def test_another_dtype_is_damage(tmp_path: Path) -> None:
    write(HiddenStates(tmp_path, torch.bfloat16), batches_of(0, torch.bfloat16))
    with pytest.raises(CorruptActivations, match="0/math/0"):
        read_all(HiddenStates(tmp_path, torch.float32))


def test_generations_are_let_go_of_from_the_front(tmp_path: Path) -> None:
    states = HiddenStates(tmp_path, torch.float32)
    for depth in (0, 1, 2, 10):
        write(states, batches_of(depth), depth=depth)
    states.drop_before(2)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["10", "2"]
    states.drop_before(0)
    assert len(list(states.read("math", 10, TOKENS))) == 3


def test_a_write_that_fails_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(HiddenStates, "write_batch", refuse)
    with pytest.raises(OSError, match="no space left"):
        write(HiddenStates(tmp_path, torch.float32), batches_of(0))

"""Stored inputs of models that read neither text nor images of one size: which tensors and tokens, what is refused."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    LlamaConfig,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
)

from architectures import clip_vision, llama
from regstream.data.loading import TokenRows, load_calibration
from regstream.data.stored_inputs import ForwardInputs, InputRows
from regstream.data.target_rows import Decoder
from regstream.errors import InputError
from regstream.manifest.schema import Calibration

CPU = torch.device("cpu")
AUDIO = ForwardInputs(
    main="input_values",
    arguments={"input_values", "attention_mask"},
    count_tokens=lambda row: row["input_values"].shape[1] // 100,
)
PATCHES = ForwardInputs(
    main="pixel_values",
    arguments={"pixel_values", "pixel_attention_mask", "spatial_shapes", "labels"},
    count_tokens=lambda row: row["pixel_values"].shape[1],
)


def load(
    path: Path,
    forward: ForwardInputs,
    *,
    seed: int = 0,
    warnings: list[str] | None = None,
    decoder: Decoder | None = None,
    **settings: Any,
) -> InputRows:
    rows = load_calibration(
        Calibration(path=path, **settings),
        architecture=clip_vision(),
        config=LlamaConfig(),
        base=path.parent,
        seed=seed,
        warn=(warnings if warnings is not None else []).append,
        forward=forward,
        decoder=decoder,
    )
    assert isinstance(rows, InputRows)
    return rows


def write(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def inputs_of(rows: InputRows, dtype: torch.dtype = torch.float32) -> list[dict[str, Tensor]]:
    return [rows.inputs(index, dtype=dtype, device=CPU) for index in range(len(rows.batches))]


def patches(*sides: tuple[int, int], length: int = 12, width: int = 48) -> dict[str, Tensor]:
    """Images of different sizes as SigLIP 2 reads them, padded to `length` patches of `width` values."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.stack([torch.arange(length) < height * width for height, width in sides]).int()
    values = torch.randn(len(sides), length, width, generator=generator) * mask[..., None]
    return {"pixel_values": values, "pixel_attention_mask": mask, "spatial_shapes": torch.tensor(sides)}


def test_audio_comes_in_batches_of_its_tokens(tmp_path: Path) -> None:
    values = torch.randn(5, 800, generator=torch.Generator().manual_seed(0))
    rows = load(write(tmp_path / "rows.safetensors", {"input_values": values}), AUDIO, batch_rows=2)
    assert [batch.lengths for batch in rows.batches] == [(8, 8), (8, 8), (8,)]
    assert torch.equal(torch.cat([row["input_values"] for row in inputs_of(rows)]), values)
    assert {row["input_values"].dtype for row in inputs_of(rows, torch.bfloat16)} == {torch.bfloat16}
    assert rows.input_bytes == 4 * 2 * 800
    assert len(rows) == 5


def test_audio_runs_in_the_model_that_reads_it(tmp_path: Path) -> None:
    config: Any = Wav2Vec2Config
    model: Any = Wav2Vec2Model(
        config(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, conv_dim=(8, 8),
            conv_kernel=(10, 3), conv_stride=(5, 2), num_feat_extract_layers=2, num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2,
        )
    )  # fmt: skip
    model.train(False)

    def count_tokens(row: Mapping[str, Tensor]) -> int:
        with torch.no_grad():
            return int(model(**row).last_hidden_state.shape[1])

    path = write(tmp_path / "rows.safetensors", {"input_values": torch.randn(3, 400)})
    rows = load(path, replace(AUDIO, count_tokens=count_tokens))
    (inputs,) = inputs_of(rows)
    with torch.no_grad():
        assert model(**inputs).last_hidden_state.shape[:2] == rows.batches[0].shape == (3, 39)


def test_the_seed_samples_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.safetensors", {"input_values": torch.randn(30, 200)})
    sampled = [inputs_of(load(path, AUDIO, rows=6, seed=seed))[0]["input_values"] for seed in (0, 0, 1)]
    assert sampled[0].shape == (6, 200)
    assert torch.equal(sampled[0], sampled[1])
    assert not torch.equal(sampled[0], sampled[2])
    warnings: list[str] = []
    load(path, AUDIO, rows=31, warnings=warnings)
    assert warnings == ["rows.safetensors: has 30 rows, fewer than rows = 31; using all 30"]


def test_padding_on_the_right_is_no_tokens_and_is_cut(tmp_path: Path) -> None:
    tensors = patches((2, 3), (2, 5), (1, 2))
    rows = load(write(tmp_path / "rows.safetensors", tensors | {"labels": torch.arange(3)}), PATCHES, batch_rows=2)
    assert [batch.lengths for batch in rows.batches] == [(10, 6), (2,)]
    first, last = inputs_of(rows)
    assert first.keys() == {"pixel_values", "pixel_attention_mask", "spatial_shapes"}
    assert torch.equal(first["pixel_values"], tensors["pixel_values"][[1, 0], :10])
    assert first["pixel_attention_mask"].sum(dim=1).tolist() == [10, 6]
    assert first["pixel_attention_mask"].dtype == torch.int32
    assert first["spatial_shapes"].tolist() == [[2, 5], [2, 3]]
    assert last["pixel_values"].shape == (1, 2, 48)


def test_images_of_different_sizes_run_in_the_model_that_reads_them(tmp_path: Path) -> None:
    config: Any = Siglip2VisionConfig
    model: Any = Siglip2VisionModel(
        config(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, patch_size=4,
            num_patches=16, vision_use_head=False,
        )
    )  # fmt: skip
    model.train(False)
    rows = load(write(tmp_path / "rows.safetensors", patches((2, 3), (2, 5), (1, 2))), PATCHES)
    (inputs,) = inputs_of(rows)
    with torch.no_grad():
        assert model(**inputs).last_hidden_state.shape[:2] == rows.batches[0].shape == (3, 10)


def test_the_digest_changes_with_content_and_batches(tmp_path: Path) -> None:
    path, tensors = tmp_path / "rows.safetensors", patches((2, 3), (2, 5), (1, 2))
    origin = load(write(path, tensors), PATCHES)
    assert load(path, PATCHES).digest == origin.digest == origin.read_digest()
    batched = load(path, PATCHES, batch_rows=1).digest
    other = load(write(path, tensors | {"spatial_shapes": torch.tensor([[3, 2], [2, 5], [1, 2]])}), PATCHES).digest
    assert len({origin.digest, batched, other}) == 3
    assert origin.read_digest() == other


@pytest.mark.parametrize(
    ("forward", "tensors", "reason"),
    [
        (AUDIO, {"input_features": torch.zeros(2, 8)}, "expected a tensor input_values, found input_features"),
        (
            AUDIO,
            {"input_values": torch.zeros(2, 8), "speaker": torch.zeros(2)},
            "speaker is no argument of the model's forward pass; remove it, or name it as one of",
        ),
        (
            AUDIO,
            {"input_values": torch.zeros(2, 8), "attention_mask": torch.ones(3, 8)},
            r"attention_mask has shape \[3, 8\]; expected \(2, …\)",
        ),
        (AUDIO, {"input_values": torch.zeros(0, 8)}, r"input_values has shape \[0, 8\]; expected \(rows, …\)"),
        (AUDIO, {"input_values": torch.tensor(1.0)}, r"input_values has shape \[\]; expected \(rows, …\)"),
        (AUDIO, {"input_values": torch.zeros(2, 8, dtype=torch.complex64)}, "input_values is .*expected real numbers"),
        (AUDIO, {"input_values": torch.full((2, 800), torch.nan)}, "input_values of rows 0-1 hold NaN or infinite"),
        (
            AUDIO,
            {"input_values": torch.zeros(2, 800), "attention_mask": torch.tensor([[1] * 800, [1] * 500 + [0] * 300])},
            r"row 2: attention_mask of shape \[800\] marks padding that is not the end of the row's 8 tokens",
        ),
        (
            PATCHES,
            {"pixel_values": torch.zeros(1, 3, 8), "pixel_attention_mask": torch.tensor([[0, 1, 1]])},
            "row 1: pixel_attention_mask .* marks padding that is not the end",
        ),
        (
            PATCHES,
            {"pixel_values": torch.zeros(1, 3, 8), "pixel_attention_mask": torch.tensor([[0, 0, 0]])},
            "row 1: pixel_attention_mask .* marks padding that is not the end",
        ),
        (
            PATCHES,
            {"pixel_values": torch.zeros(1, 3, 8), "pixel_attention_mask": torch.tensor([[2, 1, 0]])},
            "row 1: pixel_attention_mask .* marks padding that is not the end",
        ),
    ],
)
def test_what_the_model_does_not_read_is_refused(
    tmp_path: Path, forward: ForwardInputs, tensors: dict[str, Tensor], reason: str
) -> None:
    path = write(tmp_path / "rows.safetensors", tensors)
    with pytest.raises(InputError, match=reason) as refused:
        load(path, forward)
    assert str(refused.value).startswith(f"{path}: ")


SPEECH = ForwardInputs(
    main="input_features",
    arguments={"input_features", "attention_mask", "decoder_input_ids"},
    count_tokens=lambda row: row["input_features"].shape[1],
)


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        ([3, 4, -100], "row 1: token id -100 is outside the vocabulary"),
        ([3, 4, 32_000], "row 1: token id 32000 is outside the vocabulary"),
        ([3, 4, 5, 6], "row 1: decoder_input_ids has 4 tokens, and the decoder has learned 3 positions; cut it"),
    ],
)
def test_targets_that_a_decoder_cannot_read_are_refused(tmp_path: Path, ids: list[int], reason: str) -> None:
    tensors = {"input_features": torch.zeros(1, 6, 2), "decoder_input_ids": torch.tensor([ids])}
    path = write(tmp_path / "rows.safetensors", tensors)
    with pytest.raises(InputError, match=reason):
        load(path, SPEECH, decoder=Decoder(shift=lambda labels: labels, max_positions=3))


def test_a_target_as_long_as_a_padded_input_is_not_cut(tmp_path: Path) -> None:
    tensors = {
        "input_features": torch.zeros(1, 6, 2),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 0, 0]]),
        "decoder_input_ids": torch.arange(3, 9)[None],
    }
    rows = load(write(tmp_path / "rows.safetensors", tensors), SPEECH, decoder=Decoder(shift=lambda labels: labels))
    [inputs] = inputs_of(rows)
    assert inputs["input_features"].shape == (1, 4, 2)
    assert inputs["decoder_input_ids"].tolist() == [[3, 4, 5, 6, 7, 8]]
    assert rows.targets[0].lengths == (6,)


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "hi"}')
    (tmp_path / "folder").mkdir()
    for name in ("rows.jsonl", "folder"):
        with pytest.raises(InputError, match=f"{name}: expected a .safetensors of input_values"):
            load(tmp_path / name, AUDIO)
    (tmp_path / "rows.safetensors").write_bytes(b"no header")
    with pytest.raises(InputError, match=r"rows.safetensors: "):
        load(tmp_path / "rows.safetensors", AUDIO)


def test_a_model_of_text_reads_token_ids_alone_and_other_inputs_beside_them(tmp_path: Path) -> None:
    forward = ForwardInputs(
        main="input_ids", arguments={"input_ids", "pixel_values"}, count_tokens=lambda row: row["input_ids"].shape[1]
    )

    def load_ids(tensors: dict[str, Tensor]) -> Any:
        path = write(tmp_path / "rows.safetensors", tensors)
        config = LlamaConfig()
        return load_calibration(
            Calibration(path=path),
            architecture=llama(),
            config=config,
            base=tmp_path,
            seed=0,
            warn=print,
            forward=forward,
        )

    ids = {"input_ids": torch.ones(2, 5, dtype=torch.int64)}
    assert isinstance(load_ids(ids), TokenRows)
    rows = load_ids(ids | {"pixel_values": torch.zeros(2, 3, 4, 4)})
    assert isinstance(rows, InputRows)
    assert inputs_of(rows)[0].keys() == {"input_ids", "pixel_values"}

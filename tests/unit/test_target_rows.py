"""Rows of an input and a target: what the encoder reads, what the decoder reads, and what it is to predict."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import BartConfig, BartForConditionalGeneration, T5Config, WhisperConfig

import architectures
import checkpoints
from regstream.data.loading import load_calibration
from regstream.data.target_rows import Decoder, TargetRows
from regstream.errors import InputError
from regstream.manifest.schema import Calibration

START = 2
SIZES: dict[str, Any] = {
    "decoder_start_token_id": 0,
    "d_model": 8,
    "d_ff": 16,
    "d_kv": 4,
    "num_heads": 2,
    "num_layers": 1,
    "pad_token_id": 0,
}
T5 = T5Config(**SIZES, vocab_size=checkpoints.VOCABULARY)
Load = Callable[..., TargetRows]


def shift(labels_1L: Tensor) -> Tensor:
    """Labels after the token that a decoder begins with."""
    return torch.cat([torch.full((1, 1), START), labels_1L[:, :-1]], dim=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    checkpoints.make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def load(folder: Path) -> Load:
    """Load a file with settings of [candidates.calibration], for a T5."""

    def load(
        path: Path,
        *,
        config: Any = T5,
        max_positions: int | None = None,
        warnings: list[str] | None = None,
        **settings: Any,
    ) -> Any:
        return load_calibration(
            Calibration(path=path, **settings),
            architecture=architectures.derived(config),
            config=config,
            base=folder,
            seed=0,
            warn=(warnings if warnings is not None else []).append,
            decoder=Decoder(shift=shift, max_positions=max_positions),
        )

    return load


def write(path: Path, *rows: Mapping[str, Any]) -> Path:
    """A file of rows."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def ids_of(rows: TargetRows, index: int = 0) -> tuple[list[int], list[int], list[int]]:
    """What encoder and decoder read of a row, and what the decoder is to predict."""
    inputs = rows.inputs(index, dtype=torch.float32, device=torch.device("cpu"))
    assert inputs.keys() == {"input_ids", "decoder_input_ids"}
    return (
        inputs["input_ids"][0].tolist(),
        inputs["decoder_input_ids"][0].tolist(),
        rows.target_labels(index)[0].tolist(),
    )


def test_texts_of_input_and_target_are_tokenized(tmp_path: Path, load: Load) -> None:
    path = write(tmp_path / "rows.jsonl", {"text": "a long story", "summary": "short"}, {"text": "b", "summary": "c"})
    rows, tokenizer = load(path, target="summary"), checkpoints.make_tokenizer()
    story, short = tokenizer("a long story")["input_ids"], tokenizer("short")["input_ids"]
    assert ids_of(rows) == (story, [START, *short[:-1]], short)
    assert rows.batches[0].lengths == (len(story),)
    assert rows.targets[0].lengths == (len(short),)
    assert len(rows.batches) == len(rows.targets) == 2


def test_a_target_may_be_a_template_of_several_fields(tmp_path: Path, load: Load) -> None:
    path = write(tmp_path / "rows.jsonl", {"text": "x", "a": "one", "b": "two"})
    expected = checkpoints.make_tokenizer()("one two")["input_ids"]
    assert ids_of(load(path, target="{a} {b}"))[2] == expected


def test_labels_are_shifted_and_decoder_input_ids_are_not(tmp_path: Path, load: Load) -> None:
    path = write(tmp_path / "rows.jsonl", {"input_ids": [5, 6, 7], "labels": [8, 9, -100], "decoder_input_ids": [3, 4]})
    assert ids_of(load(path, field="input_ids")) == ([5, 6, 7], [START, 8], [8, 9])
    assert ids_of(load(path, field="input_ids", target="decoder_input_ids")) == ([5, 6, 7], [3, 4], [4])


def test_tensors_of_token_ids_have_targets_too(tmp_path: Path, load: Load) -> None:
    ids = {"input_ids": torch.tensor([[5, 6, 0]]), "attention_mask": torch.tensor([[1, 1, 0]])}
    targets = {"labels": torch.tensor([[8, 9, 4, -100]]), "decoder_input_ids": torch.tensor([[3, 4, 0]])}
    targets["decoder_attention_mask"] = torch.tensor([[1, 1, 0]])
    save_file(ids | targets, path := tmp_path / "rows.safetensors")
    assert ids_of(load(path)) == ([5, 6], [START, 8, 9], [8, 9, 4])
    assert ids_of(load(path, target="decoder_input_ids")) == ([5, 6], [3, 4], [4])


def test_tensors_of_inputs_and_targets_have_as_many_rows(tmp_path: Path, load: Load) -> None:
    tensors = {"input_ids": torch.arange(10)[:, None] + 3, "labels": torch.arange(8)[:, None] + 3}
    save_file(tensors, path := tmp_path / "rows.safetensors")
    with pytest.raises(InputError, match=r"labels has shape \[8, 1\], input_ids \[10, 1\]; expected as many rows"):
        load(path, rows=5)


@pytest.mark.parametrize(
    "ids", [{"input_ids": [5, -100], "labels": [4, 4]}, {"input_ids": [5, 6, 7], "labels": [4, -100, 4]}]
)
def test_what_marks_padding_of_labels_is_no_token_elsewhere(tmp_path: Path, load: Load, ids: Mapping[str, Any]) -> None:
    for_tensors = {name: torch.tensor([row]) for name, row in ids.items()}
    save_file(for_tensors, tensors := tmp_path / "rows.safetensors")
    with pytest.raises(InputError, match="row 1: token id -100 is outside"):
        load(tensors)
    with pytest.raises(InputError, match="line 1: token id -100 is outside"):
        load(write(tmp_path / "rows.jsonl", ids), field="input_ids")


def test_labels_may_be_padded_on_the_left(tmp_path: Path, load: Load) -> None:
    path = write(tmp_path / "rows.jsonl", {"input_ids": [5], "labels": [-100, 8, 9]})
    assert ids_of(load(path, field="input_ids"))[2] == [8, 9]


def test_a_mask_of_targets_is_named_where_it_is_wrong(tmp_path: Path, load: Load) -> None:
    ids = {"input_ids": torch.tensor([[5]]), "decoder_input_ids": torch.tensor([[3, 4]])}
    save_file(ids | {"decoder_attention_mask": torch.tensor([[1, 2]])}, path := tmp_path / "rows.safetensors")
    with pytest.raises(InputError, match="expected 0 and 1 in decoder_attention_mask"):
        load(path, target="decoder_input_ids")


def test_targets_are_cut_to_the_positions_that_the_decoder_has_learned(tmp_path: Path, load: Load) -> None:
    path = write(tmp_path / "rows.jsonl", {"input_ids": [5, 6, 7, 8], "labels": [7, 8, 9]})
    warnings: list[str] = []
    assert ids_of(load(path, field="input_ids", max_positions=2, warnings=warnings)) == (
        [5, 6, 7, 8],
        [START, 7],
        [7, 8],
    )
    [warning] = [line for line in warnings if "cut" in line]
    assert warning.startswith("rows.jsonl: 1 of 1 targets are cut to 2 tokens, the positions")
    save_file(
        {"input_ids": torch.tensor([[5]]), "labels": torch.tensor([[7, 8, 9]])}, path := tmp_path / "rows.safetensors"
    )
    assert ids_of(load(path, max_positions=2))[2] == [7, 8]


def test_a_file_of_fewer_tensors_than_asked_for_is_warned_of(tmp_path: Path, load: Load) -> None:
    save_file({"input_ids": torch.tensor([[5]]), "labels": torch.tensor([[7]])}, path := tmp_path / "rows.safetensors")
    warnings: list[str] = []
    load(path, rows=9, warnings=warnings)
    assert warnings == ["rows.safetensors: has 1 rows, fewer than rows = 9; using all 1"]


def test_rows_share_a_batch_whose_inputs_and_targets_are_as_long(tmp_path: Path, load: Load) -> None:
    lengths = [(2, 3), (3, 2), (2, 3), (2, 2), (2, 3), (3, 2)]
    given = [{"input_ids": [5] * i, "labels": list(range(3, 3 + t))} for i, t in lengths]
    path = write(tmp_path / "rows.jsonl", *given)
    rows = load(path, field="input_ids")
    assert [batch.lengths for batch in rows.batches] == [(3, 3), (2, 2, 2), (2,)]
    assert [batch.lengths for batch in rows.targets] == [(2, 2), (3, 3, 3), (2,)]
    assert rows.inputs(1, dtype=torch.float32, device=torch.device("cpu"))["decoder_input_ids"].shape == (3, 3)
    assert rows.target_labels(1).tolist() == [[3, 4, 5]] * 3
    smaller = load(path, field="input_ids", batch_rows=2)
    assert [len(batch.lengths) for batch in smaller.batches] == [2, 2, 1, 1]
    assert smaller.digest != rows.digest


def test_a_row_without_its_target_is_refused_in_one_line(tmp_path: Path, load: Load) -> None:
    path = write(tmp_path / "rows.jsonl", {"text": "x", "summary": "y"}, {"text": "z"})
    with pytest.raises(InputError, match=r'rows.jsonl, line 2: no field "summary"; there are text'):
        load(path, target="summary")
    with pytest.raises(
        InputError, match=r"has a decoder, and a row needs a target for it; name the field of the target"
    ):
        load(path)
    with pytest.raises(InputError, match=r'no field "labels"'):
        load(write(tmp_path / "ids.jsonl", {"input_ids": [3]}), field="input_ids")


def test_ids_of_targets_beyond_the_vocabulary_are_refused(tmp_path: Path, load: Load) -> None:
    path = write(tmp_path / "rows.jsonl", {"input_ids": [3], "labels": [4, checkpoints.VOCABULARY]})
    with pytest.raises(InputError, match=f"token id {checkpoints.VOCABULARY} is outside the vocabulary"):
        load(path, field="input_ids")


def test_a_model_without_a_decoder_reads_no_target(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"input_ids": [3], "labels": [4]})
    with pytest.raises(InputError, match='target = "labels" names the target of rows, and LlamaForCausalLM has no'):
        load_calibration(
            Calibration(path=path, field="input_ids", target="labels"),
            architecture=architectures.llama(),
            config=T5,
            base=tmp_path,
            seed=0,
            warn=lambda _: None,
        )


def test_the_digest_is_that_of_inputs_and_targets(tmp_path: Path, load: Load) -> None:
    digests = {
        load(write(tmp_path / "rows.jsonl", {"input_ids": ids, "labels": labels}), field="input_ids").digest
        for ids, labels in (([3, 4], [5]), ([3], [4, 5]), ([3, 4], [6]))
    }
    assert len(digests) == 3


def test_labels_are_shifted_as_the_model_does_it() -> None:
    config = BartConfig(
        d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=8, decoder_ffn_dim=8, vocab_size=32, decoder_start_token_id=7, pad_token_id=0,
    )  # fmt: skip
    assert architectures.derived(config).has_targets
    labels_1L = torch.tensor([[4, 5, 6]])
    expected = BartForConditionalGeneration(config).prepare_decoder_input_ids_from_labels(labels_1L)
    layered = architectures.layered(config)
    assert torch.equal(layered.decoder_inputs(labels_1L), expected)


def test_a_model_that_shifts_labels_in_its_forward_alone_begins_with_its_start_token() -> None:
    config = WhisperConfig(
        d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=8, decoder_ffn_dim=8, vocab_size=32, decoder_start_token_id=7, pad_token_id=0, num_mel_bins=4,
        max_source_positions=8, max_target_positions=16,
    )  # fmt: skip
    layered = architectures.layered(config)
    assert layered.decoder_inputs(torch.tensor([[4, 5, 6]])).tolist() == [[7, 4, 5]]
    assert (layered.max_positions, layered.max_target_positions) == (8, 16)

"""Rows of text and images: what the processor makes of them, which images belong to them, and what is refused."""

import copy
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import LlamaConfig, PreTrainedTokenizerFast

from architectures import llama
from checkpoints import SENTENCES, VOCABULARY, make_tokenizer
from merging import make_merge
from multimodal import (
    IMAGE_TOKENS,
    VISION_LANGUAGE,
    VisionLanguage,
    load_model,
    make_vision_language,
    make_vision_language_merge,
    processor_inputs,
    write_image,
    write_jsonl,
    write_processor,
    write_rows_with_images,
)
from regstream.data.loading import CalibrationSet, TokenRows, load_calibration
from regstream.data.multimodal import MultimodalRows
from regstream.data.tokenizer_process import SharedTokenizer
from regstream.errors import InputError, ResumeError
from regstream.events import Event
from regstream.manifest.schema import Calibration
from regstream.runtime.input_files import InputFiles

CPU = torch.device("cpu")
ASK = {"type": "text", "text": "What is it?"}


def load(path: Path, base: Path, *, warnings: list[str] | None = None, **settings: Any) -> CalibrationSet:
    warn = (warnings if warnings is not None else []).append
    config = LlamaConfig(vocab_size=VOCABULARY + 8)
    return load_calibration(
        Calibration(path=path, **settings), architecture=llama(), config=config, base=base, seed=0, warn=warn
    )


def load_multimodal(path: Path, base: Path, **settings: Any) -> MultimodalRows:
    rows = load(path, base, **settings)
    assert isinstance(rows, MultimodalRows)
    return rows


def inputs_of(rows: CalibrationSet, dtype: torch.dtype = torch.float32) -> list[dict[str, Tensor]]:
    return [rows.inputs(index, dtype=dtype, device=CPU) for index in range(len(rows.batches))]


def asks(*images: Any) -> dict[str, Any]:
    """A row of messages with images, each a part or the path of one."""
    parts = [image if isinstance(image, dict) else {"type": "image", "path": image} for image in images]
    return {"messages": [{"role": "user", "content": [*parts, ASK]}]}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_processor(tmp_path / "base", "gemma3")


@pytest.fixture
def rows_folder(tmp_path: Path) -> Path:
    for index in range(3):
        write_image(tmp_path / "rows" / f"{index}.png", index)
    return tmp_path / "rows"


@pytest.mark.parametrize("kind", VISION_LANGUAGE)
def test_a_model_of_transformers_runs_on_the_rows_of_its_processor(tmp_path: Path, kind: VisionLanguage) -> None:
    folders = make_vision_language(tmp_path, kind)
    path = write_rows_with_images(tmp_path / "rows" / "rows.jsonl", 4)
    rows = load_multimodal(path, folders.base, field="messages")
    model: Any = load_model(folders.base, kind, torch.float32)
    inputs = inputs_of(rows)
    assert sum("pixel_values" in row for row in inputs) == 2
    for row, batch in zip(inputs, rows.batches, strict=True):
        with torch.no_grad():
            logits = model(**row).logits
        assert logits.shape[:2] == batch.shape == (1, batch.num_tokens)
        assert bool(torch.isfinite(logits).all())


def test_a_length_that_the_tokenizer_stores_cuts_no_row(tmp_path: Path, base: Path, rows_folder: Path) -> None:
    path = write_jsonl(rows_folder / "rows.jsonl", [asks("0.png")])
    whole = load_multimodal(path, base, field="messages").batches
    content = json.loads((base / "tokenizer.json").read_text())
    content["truncation"] = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    (base / "tokenizer.json").write_text(json.dumps(content))
    assert load_multimodal(path, base, field="messages").batches == whole
    assert whole[0].num_tokens > 8


QWEN = {"mm_token_type_ids", "image_grid_thw"}
#: By the processor's class: its image processor's class, settings, special tokens with the image's first, and inputs.
OTHER_PROCESSORS: dict[str, tuple[str, dict[str, Any], dict[str, str], set[str]]] = {
    "Qwen2VLProcessor": ("Qwen2VLImageProcessor", {}, {"image": "<|image_pad|>"}, QWEN),
    "Qwen3VLProcessor": ("Qwen2VLImageProcessorFast", {}, {"image": "<|image_pad|>"}, QWEN),
    "Idefics3Processor": (
        "Idefics3ImageProcessor",
        {"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 16}, "image_seq_len": 4},
        {"image": "<image>", "fake": "<fake_token_around_image>"},
        {"pixel_attention_mask"},
    ),
    "PaliGemmaProcessor": (
        "SiglipImageProcessor",
        {"size": {"height": 16, "width": 16}, "image_seq_length": 4},
        {"image": "<image>"},
        {"token_type_ids"},
    ),
    "InternVLProcessor": (
        "GotOcr2ImageProcessor",
        {"size": {"height": 16, "width": 16}, "max_patches": 3, "image_seq_length": 4},
        {"context_image": "<IMG>", "start_image": "<img>", "end_image": "</img>", "video": "<video>"},
        set(),
    ),
}


@pytest.mark.parametrize("processor", OTHER_PROCESSORS)
def test_processors_of_other_models_make_their_own_inputs(rows_folder: Path, processor: str) -> None:
    image_processor, settings, tokens, names = OTHER_PROCESSORS[processor]
    base, make = rows_folder.parent / "base", cast("Any", PreTrainedTokenizerFast)  # untyped
    named_tokens = {f"{name}_token": token for name, token in tokens.items()}
    backend = copy.deepcopy(make_tokenizer()).backend_tokenizer
    tokenizer = make(tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", extra_special_tokens=named_tokens)
    tokenizer.save_pretrained(base)
    classes = {"image_processor_type": image_processor, "processor_class": processor}
    (base / "preprocessor_config.json").write_text(json.dumps(classes | settings))
    (base / "processor_config.json").write_text(json.dumps({"processor_class": processor} | settings))
    image = next(iter(tokens.values()))
    path = write_jsonl(rows_folder / "rows.jsonl", [{"text": f"{image}What is it?", "image": "0.png"}])
    (inputs,) = inputs_of(load_multimodal(path, base, images="image"))
    assert inputs.keys() == {"input_ids", "pixel_values"} | names


@pytest.mark.parametrize("kind", VISION_LANGUAGE)
def test_rows_are_what_the_processor_itself_makes_of_them_longest_first(tmp_path: Path, kind: VisionLanguage) -> None:
    base = write_processor(tmp_path / "base", kind)
    path = write_rows_with_images(tmp_path / "rows" / "rows.jsonl", 5)
    expected = sorted(processor_inputs(base, path), key=lambda row: row["input_ids"].shape[1], reverse=True)
    rows = load_multimodal(path, base, field="messages")
    assert [batch.lengths for batch in rows.batches] == [(row["input_ids"].shape[1],) for row in expected]
    for row, wanted in zip(inputs_of(rows), expected, strict=True):
        assert row.keys() == wanted.keys()
        assert all(torch.equal(row[name], wanted[name]) for name in row)


def test_floating_point_inputs_have_the_dtype_and_whole_numbers_keep_theirs(base: Path, rows_folder: Path) -> None:
    rows = load_multimodal(write_jsonl(rows_folder / "rows.jsonl", [asks("0.png")]), base, field="messages")
    (row,) = inputs_of(rows, torch.bfloat16)
    assert {name: value.dtype for name, value in row.items()} == {
        "input_ids": torch.int64,
        "token_type_ids": torch.int64,
        "pixel_values": torch.bfloat16,
    }
    assert rows.input_bytes == 4 * row["pixel_values"].numel() + 2 * row["input_ids"].nbytes
    assert torch.equal(rows.token_ids(0)[0], row["input_ids"][0])


@pytest.mark.parametrize("kind", VISION_LANGUAGE)
def test_texts_name_their_images_in_a_field(tmp_path: Path, rows_folder: Path, kind: VisionLanguage) -> None:
    base, token = write_processor(tmp_path / "base", kind), IMAGE_TOKENS[kind]
    lines: list[dict[str, Any]] = [
        {"text": f"{token}What?", "picture": "0.png"},
        {"text": f"{token} and {token}?", "picture": ["1.png", "2.png"]},
        {"text": "No picture.", "picture": None},
        {"text": "Nor here."},
    ]
    rows = load_multimodal(write_jsonl(rows_folder / "rows.jsonl", lines), base, images="picture")
    assert len(rows) == 4
    assert ["pixel_values" in row for row in inputs_of(rows)] == [True, True, False, False]
    assert {path.name for path in rows.image_files} == {"0.png", "1.png", "2.png"}


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "image": "0.png"},
        {"type": "image", "url": "0.png"},
        {"type": "image_url", "image_url": {"url": "0.png"}},
        {"image": "0.png"},
        {"type": "image", "path": "0.png", "text": None, "image": None},
    ],
)
def test_parts_of_messages_name_an_image_in_several_ways(base: Path, rows_folder: Path, part: dict[str, Any]) -> None:
    plain = load(write_jsonl(rows_folder / "plain.jsonl", [asks("0.png")]), base, field="messages")
    found = load(write_jsonl(rows_folder / "rows.jsonl", [asks(part)]), base, field="messages")
    assert found.digest == plain.digest


def test_a_field_has_the_images_of_messages_that_name_none(base: Path, rows_folder: Path) -> None:
    plain = load(write_jsonl(rows_folder / "plain.jsonl", [asks("0.png", "1.png")]), base, field="messages")
    listed = asks({"type": "image"}, {"type": "image"}) | {"images": ["0.png", {"path": "1.png"}]}
    found = load(write_jsonl(rows_folder / "rows.jsonl", [listed]), base, field="messages", images="images")
    assert found.digest == plain.digest


def test_placeholders_in_texts_of_a_conversation_are_its_images(base: Path, rows_folder: Path) -> None:
    plain = load(write_jsonl(rows_folder / "plain.jsonl", [asks("0.png")]), base, field="messages")
    row = {"conversations": [{"from": "human", "value": "<image>What is it?"}], "image": "0.png"}
    found = load(write_jsonl(rows_folder / "rows.jsonl", [row]), base, field="messages", images="image")
    assert found.digest == plain.digest


@pytest.mark.parametrize("is_list", [False, True])
def test_a_column_of_a_table_has_the_images(base: Path, rows_folder: Path, is_list: bool) -> None:
    plain = load(
        write_jsonl(rows_folder / "plain.jsonl", [asks("0.png"), asks("1.png"), asks()]), base, field="messages"
    )
    images: list[Any] = [{"bytes": (rows_folder / f"{index}.png").read_bytes(), "path": None} for index in range(2)]
    columns = {
        "messages": [asks({"type": "image"})["messages"], asks({"type": "image"})["messages"], asks()["messages"]],
        "images": [[image] for image in images] + [[]] if is_list else [*images, None],
    }
    pq.write_table(pa.table(columns), rows_folder / "rows.parquet", row_group_size=2)
    found = load_multimodal(rows_folder / "rows.parquet", base, field="messages", images="images")
    assert found.digest == plain.digest
    assert found.image_files == ()


def test_a_set_of_text_goes_through_the_tokenizer_alone(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": [ASK]}]},
        {"messages": [{"role": "user", "content": "Hm."}]},
    ]
    base = write_processor(tmp_path / "base", "qwen2_5_vl")
    assert isinstance(load(write_jsonl(tmp_path / "rows.jsonl", rows), base, field="messages"), TokenRows)


def test_a_template_of_fields_has_images_too(base: Path, rows_folder: Path) -> None:
    line: dict[str, Any] = {"question": "What?", "answer": "Noise.", "image": "0.png"}
    path = write_jsonl(rows_folder / "rows.jsonl", [line])
    rows = load_multimodal(path, base, field="<start_of_image>{question} {answer}", images="image")
    assert "pixel_values" in inputs_of(rows)[0]


def test_the_seed_samples_rows(base: Path, rows_folder: Path) -> None:
    path = write_jsonl(rows_folder / "rows.jsonl", [asks("0.png") for _ in range(9)])
    warnings: list[str] = []
    assert len(load_multimodal(path, base, field="messages", rows=4)) == 4
    assert len(load_multimodal(path, base, field="messages", rows=10, batch_rows=8, warnings=warnings)) == 9
    assert warnings == [
        "rows.jsonl: has 9 rows, fewer than rows = 10; using all 9",
        "rows.jsonl: batch_rows = 8 has no effect, each row is a batch of its own: rows have images",
    ]


def test_text_after_the_last_image_is_cut_and_an_image_is_not(base: Path, rows_folder: Path) -> None:
    path = write_jsonl(rows_folder / "rows.jsonl", [asks("0.png")])
    (whole,) = inputs_of(load(path, base, field="messages"))
    end = int((whole["token_type_ids"][0] == 1).nonzero()[-1]) + 1
    assert end < whole["input_ids"].shape[1]
    (cut,) = inputs_of(load(path, base, field="messages", max_length=end))
    assert cut["input_ids"].tolist() == whole["input_ids"][:, :end].tolist()
    assert cut["token_type_ids"].shape == (1, end)
    assert torch.equal(cut["pixel_values"], whole["pixel_values"])
    with pytest.raises(
        InputError, match=rf"line 1: its last image ends at token {end}, beyond max_length = {end - 1};"
    ):
        load(path, base, field="messages", max_length=end - 1)


def test_the_digest_changes_with_pixels_and_texts_and_not_with_names(base: Path, rows_folder: Path) -> None:
    path = write_jsonl(rows_folder / "rows.jsonl", [asks("0.png")])
    rows = load_multimodal(path, base, field="messages")
    assert rows.read_digest() == rows.digest
    (rows_folder / "copy.png").write_bytes((rows_folder / "0.png").read_bytes())
    same = load(write_jsonl(rows_folder / "same.jsonl", [asks("copy.png")]), base, field="messages")
    assert same.digest == rows.digest
    other = load(write_jsonl(rows_folder / "other.jsonl", [asks("1.png")]), base, field="messages")
    text = load(write_jsonl(rows_folder / "text.jsonl", [asks("0.png", ASK)]), base, field="messages")
    write_image(rows_folder / "0.png", 9)
    assert len({rows.digest, rows.read_digest(), other.digest, text.digest}) == 4
    with pytest.raises(InputError, match="line 1: an image changed since it was first read"):
        rows.inputs(0, dtype=torch.float32, device=CPU)


def test_settings_of_the_processor_are_part_of_the_digest(base: Path, rows_folder: Path) -> None:
    path = write_jsonl(rows_folder / "rows.jsonl", [asks("0.png")])
    before = load(path, base, field="messages").digest
    settings = base / "preprocessor_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"image_mean": [0.4] * 3}))
    assert load(path, base, field="messages").digest != before


def test_sets_of_one_base_share_its_processor(base: Path, rows_folder: Path) -> None:
    with SharedTokenizer() as shared:
        process = shared.get_processor("messages", base, 8)
        assert shared.get_processor("messages", base, 8) is process
        assert shared.processor(base) is shared.processor(base)
        shared.get("messages", base, 8)
        assert shared.get_processor("messages", base, 8) is not process


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (asks("none.png"), r"rows.jsonl, line 1: image none.png: cannot be read from .*: No such file or directory"),
        (asks("damaged.png"), "image damaged.png: not a readable image: expected one of AVIF"),
        (asks("short.png"), "image short.png: not a readable image"),
        (asks("."), r"line 1: image .: .*found a folder"),
        (asks("https://example.org/a.png"), "image https://example.org/a.png: no image is fetched; download it beside"),
        (asks("data:image/png;base64,AAAA"), "no image is fetched"),
        (asks("../secret.png"), r"line 1: image \.\./secret.png is outside .*rows; put it below this folder"),
        (asks("/etc/hostname"), "image /etc/hostname is outside"),
        (asks("link.png"), "image link.png is outside"),
        (asks("a\0b"), r"line 1: image a.*b: "),
        (asks("pipe.png"), "image pipe.png.*found a named pipe|pipe.png: expected a regular file, found a named pipe"),
        (asks({"type": "image", "path": 7}), "expected the path of an image, found 7"),
        (asks({"type": "image"}, "0.png"), "0 images for 1 parts of messages without one of their own"),
        (asks({"type": "video", "path": "a.mp4"}), "line 1: its messages hold video; rows may have text and images"),
        (asks("tall.png"), "the processor refused it|not a readable image|pixels"),
    ],
)
def test_an_image_that_cannot_be_read_is_refused_by_its_row(
    base: Path, rows_folder: Path, row: dict[str, Any], reason: str
) -> None:
    (rows_folder / "damaged.png").write_bytes(b"no image")
    (rows_folder / "short.png").write_bytes((rows_folder / "0.png").read_bytes()[:200])
    Image.new("1", (9, 12_000_000)).save(rows_folder / "tall.png")
    write_image(rows_folder.parent / "secret.png", 5)
    (rows_folder / "link.png").symlink_to(rows_folder.parent / "secret.png")
    os.mkfifo(rows_folder / "pipe.png")
    with pytest.raises(InputError, match=reason) as refused:
        load(write_jsonl(rows_folder / "rows.jsonl", [row]), base, field="messages")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"text": "No place for it.", "image": "0.png"}, "line 1: the processor refused it: "),
        ({"text": "<start_of_image>", "image": ["0.png", "1.png"]}, "line 1: the processor refused it: "),
        ({"text": "<start_of_image>", "image": None}, r"the processor refused it|no row has a field"),
        ({"text": 7, "image": "0.png"}, "line 1: expected text, found 7"),
        ({"text": "\ud800", "image": "0.png"}, "half of a surrogate pair"),
        ({"text": " ", "image": []}, "line 1: empty text; remove the row"),
        ({"text": "Hm.", "picture": "0.png"}, 'rows.jsonl: no row has a field "image"; images names the field'),
    ],
)
def test_a_row_that_does_not_fit_its_images_is_refused(
    base: Path, rows_folder: Path, line: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        load(write_jsonl(rows_folder / "rows.jsonl", [line]), base, images="image")


def test_images_of_tables_are_in_a_column(base: Path, rows_folder: Path) -> None:
    path = rows_folder / "rows.parquet"
    pq.write_table(pa.table({"messages": [asks("0.png")["messages"]]}), path)
    with pytest.raises(InputError, match=r"row 1: image 0.png: a table holds its images in a column"):
        load(path, base, field="messages")
    pq.write_table(pa.table({"text": ["<start_of_image>"], "image": [{"bytes": None, "path": "0.png"}]}), path)
    with pytest.raises(InputError, match=r"row 1: image 1: expected an encoded image, found"):
        load(path, base, images="image")
    with pytest.raises(InputError, match='no column "images"; there are text, image'):
        load(path, base, images="images")


@pytest.mark.parametrize("suffix", ["txt", "safetensors"])
def test_files_without_fields_have_no_images(base: Path, rows_folder: Path, suffix: str) -> None:
    path = rows_folder / f"rows.{suffix}"
    path.write_text(SENTENCES[0])
    with pytest.raises(InputError, match="remove images"):
        load(path, base, images="image")


def test_a_base_without_a_processor_is_refused(tmp_path: Path, rows_folder: Path) -> None:
    make_tokenizer().save_pretrained(tmp_path / "text")
    path = write_jsonl(rows_folder / "rows.jsonl", [asks("0.png")])
    with pytest.raises(InputError, match=r"text: no processor_config.json or preprocessor_config.json; without"):
        load(path, tmp_path / "text", field="messages")
    (tmp_path / "text" / "preprocessor_config.json").write_text('{"image_processor_type": "CLIPImageProcessor"}')
    (tmp_path / "text" / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(InputError, match=r"transformers loads a .* from it, which reads no images beside a text"):
        load(path, tmp_path / "text", field="messages")


def test_code_of_a_processor_is_named_and_not_run(base: Path, rows_folder: Path) -> None:
    code = {"processor_class": "Own", "auto_map": {"AutoProcessor": "own.Own"}}
    (base / "processor_config.json").write_text(json.dumps(code))
    (base / "own.py").write_text(f"open({str(base / 'ran')!r}, 'w')")
    with pytest.raises(InputError, match="without the code that its auto_map names, which is never run"):
        load(write_jsonl(rows_folder / "rows.jsonl", [asks("0.png")]), base, field="messages")
    assert not (base / "ran").exists()


def test_a_missing_chat_template_is_refused(base: Path, rows_folder: Path) -> None:
    (base / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match='no chat template, but field = "messages" needs one'):
        load(write_jsonl(rows_folder / "rows.jsonl", [asks("0.png")]), base, field="messages")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("preprocessor_config.json", {"size": {"height": 200_000, "width": 200_000}}, "more than 2 GiB of memory"),
        ("preprocessor_config.json", {"image_std": [0, 0, 0]}, "NaN or infinite values of it, in pixel_values"),
        ("preprocessor_config.json", {"image_mean": [0.5, 0.5]}, "line 1: the processor refused it"),
        ("preprocessor_config.json", {"image_processor_type": "NoSuch"}, "no processor that transformers can load"),
        ("processor_config.json", {"processor_class": "NoSuch"}, "base: "),
    ],
)
def test_settings_that_make_no_inputs_are_refused(
    base: Path, rows_folder: Path, name: str, content: dict[str, Any], reason: str
) -> None:
    (base / name).write_text(json.dumps(json.loads((base / name).read_text()) | content))
    with pytest.raises(InputError, match=reason):
        load(write_jsonl(rows_folder / "rows.jsonl", [asks("0.png")]), base, field="messages")


def test_a_template_that_never_ends_is_stopped(base: Path, rows_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from regstream.data import processor_process

    monkeypatch.setattr(processor_process, "_IMAGE_SECONDS", 0)
    monkeypatch.setattr(processor_process, "_ROW_SECONDS", 1)
    (base / "chat_template.jinja").write_text(
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    )
    with pytest.raises(InputError, match="line 1: the processor or its chat template takes more than 1 s"):
        load(write_jsonl(rows_folder / "rows.jsonl", [asks("0.png")]), base, field="messages")


def test_a_package_that_a_processor_needs_is_named(base: Path, rows_folder: Path) -> None:
    (base / "processor_config.json").write_text('{"processor_class": "SmolVLMProcessor"}')
    (base / "preprocessor_config.json").write_text('{"image_processor_type": "SmolVLMImageProcessor"}')
    with pytest.raises(
        InputError, match=r"base: its processor needs a package that is missing: ImportError: .*; install"
    ):
        load(write_jsonl(rows_folder / "rows.jsonl", [asks("0.png")]), base, field="messages")


def test_an_id_outside_the_vocabulary_is_refused(base: Path, rows_folder: Path) -> None:
    path = write_jsonl(rows_folder / "rows.jsonl", [asks("0.png")])
    with pytest.raises(InputError, match=r"rows.jsonl, line 1: token id \d+ is outside the vocabulary of 288"):
        load_calibration(
            Calibration(path=path, field="messages"),
            architecture=llama(),
            config=LlamaConfig(vocab_size=VOCABULARY),
            base=base,
            seed=0,
            warn=lambda _: None,
        )


@pytest.mark.parametrize("key", ["image_token_id", "image_token_index"])
def test_a_place_for_an_image_without_one_is_refused(tmp_path: Path, rows_folder: Path, key: str) -> None:
    base = write_processor(tmp_path / "base", "llava")
    config = LlamaConfig(vocab_size=VOCABULARY + 8)
    setattr(config, key, VOCABULARY)
    path = write_jsonl(rows_folder / "rows.jsonl", [{"text": "Hm."}, {"text": "<image>What?", "picture": "0.png"}])
    options: dict[str, Any] = {"architecture": llama(), "config": config, "base": base, "seed": 0, "warn": print}
    with pytest.raises(InputError, match=r"rows.jsonl, line 2: the token of an image \(id 288\), but no image; name"):
        load_calibration(Calibration(path=path), **options)
    assert len(load_calibration(Calibration(path=path, images="picture"), **options).batches) == 2


def test_memory_follows_the_largest_row(base: Path, rows_folder: Path) -> None:
    write_image(rows_folder / "large.png", 0, size=(400, 300))
    small = load(write_jsonl(rows_folder / "a.jsonl", [asks("0.png")]), base, field="messages")
    large = load(write_jsonl(rows_folder / "b.jsonl", [asks("0.png"), asks("large.png")]), base, field="messages")
    assert large.decoding_bytes - small.decoding_bytes == 20 * (400 * 300 - 20 * 12)
    assert np.isclose(large.input_bytes, small.input_bytes, rtol=0.1)


def test_a_manifest_of_a_merge_with_images_is_valid(tmp_path: Path) -> None:
    merge = make_vision_language_merge(tmp_path, "gemma3", num_rows=3, calibration="max_length = 100")
    calibration = merge.read().candidates[1].calibration
    assert calibration is not None
    rows = load_multimodal(tmp_path / "task1" / "rows.jsonl", merge.folders.base, field=calibration.field)
    lengths = sorted((row["input_ids"].shape[1] for row in merge.rows[1]), reverse=True)
    assert [batch.num_tokens for batch in rows.batches] == lengths


def test_a_run_notices_an_image_that_changed(tmp_path: Path, base: Path) -> None:
    plan = make_merge(tmp_path / "merge", layers=1, hidden=8, candidates=2, num_rows=2).plan()
    rows = load_multimodal(write_rows_with_images(tmp_path / "rows" / "rows.jsonl", 2), base, field="messages")
    candidates = (replace(plan.candidates[0], calibration=rows), plan.candidates[1])
    files = InputFiles(replace(plan, candidates=candidates), full=False)
    warnings: list[Event] = []
    (image,) = rows.image_files
    files.check(warnings.append)
    os.utime(image)
    files.check(warnings.append)
    assert len(warnings) == 1
    write_image(image, 99)
    with pytest.raises(ResumeError, match=r"(?s)inputs changed since the run began; .*calibration task0.*1-0.png"):
        files.check(warnings.append)

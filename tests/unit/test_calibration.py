"""Calibration sets of token ids: every kind of source, what is refused, and what identifies a set."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, CLIPVisionConfig, LlamaConfig

import checkpoints
from architectures import clip_vision, llama
from regstream.data.loading import CalibrationSet, TokenRows, load_calibration
from regstream.errors import InputError
from regstream.manifest.schema import Calibration

CPU = torch.device("cpu")
TEXTS = [*checkpoints.SENTENCES]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    checkpoints.make_tokenizer().save_pretrained(folder)
    return folder


Load = Callable[..., CalibrationSet]


@pytest.fixture
def load(tokenizer: Path) -> Load:
    """Load a file with settings of [candidates.calibration]."""

    def load(
        path: Path, *, folder: Path = tokenizer, seed: int = 0, warnings: list[str] | None = None, **settings: Any
    ) -> CalibrationSet:
        return load_calibration(
            Calibration(path=path, **settings),
            architecture=llama(),
            config=LlamaConfig(vocab_size=checkpoints.VOCABULARY),
            base=folder,
            seed=seed,
            warn=(warnings if warnings is not None else []).append,
        )

    return load


def ids_of(rows: CalibrationSet) -> list[list[int]]:
    """Each row's ids as the model gets them, without padding."""
    result = []
    for index, batch in enumerate(rows.batches):
        ids_BL = rows.inputs(index, dtype=torch.float32, device=CPU)["input_ids"]
        result += [ids[:length].tolist() for ids, length in zip(ids_BL, batch.lengths, strict=True)]
    return result


def encoded(text: str) -> list[int]:
    return list(checkpoints.make_tokenizer()(text)["input_ids"])


def longest_first(rows: list[list[int]]) -> list[list[int]]:
    return sorted(rows, key=len, reverse=True)


def write(folder: Path, kind: str, texts: list[str]) -> Path:
    path = folder / f"rows.{kind}"
    if kind == "jsonl":
        checkpoints.write_texts(path, texts)
    elif kind == "txt":
        path.write_text("\n".join(texts), encoding="utf-8")
    else:
        pq.write_table(pa.table({"text": texts}), path)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "txt", "parquet"])
def test_text_of_every_kind_is_tokenized_as_the_tokenizer_does(tmp_path: Path, load: Load, kind: str) -> None:
    rows = load(write(tmp_path, kind, TEXTS))
    assert ids_of(rows) == longest_first([encoded(text) for text in TEXTS])
    assert all(ids.count(1) == 1 for ids in ids_of(rows))


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "safetensors"])
def test_ids_are_taken_as_they_are(tmp_path: Path, load: Load, kind: str) -> None:
    given = checkpoints.random_rows(checkpoints.VOCABULARY, [7] * 5, seed=0)
    path = tmp_path / f"rows.{kind}"
    if kind == "jsonl":
        checkpoints.write_token_rows(path, given)
    elif kind == "parquet":
        pq.write_table(pa.table({"input_ids": given}), path)
    else:
        save_file({"input_ids": torch.tensor(given)}, path)
    # No tokenizer is needed for ids, so none is looked for.
    assert ids_of(load(path, field="input_ids", folder=tmp_path / "absent")) == given


def test_messages_go_through_the_chat_template_and_begin_but_once(tmp_path: Path, load: Load) -> None:
    messages = [{"role": "user", "content": "What is 6 times 7?"}, {"role": "assistant", "content": "42"}]
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"messages": messages}))
    (ids,) = ids_of(load(path, field="messages"))
    assert ids == encoded("user: What is 6 times 7?</s>\nassistant: 42</s>\n")
    assert ids.count(checkpoints.make_tokenizer().bos_token_id) == 1


@pytest.mark.parametrize("field", ["text", "input_ids", "messages"])
@pytest.mark.parametrize("kind", ["jsonl", "safetensors"])
def test_long_rows_are_cut(tmp_path: Path, load: Load, field: str, kind: str) -> None:
    path = tmp_path / f"rows.{kind}"
    record = {"text": TEXTS[0], "input_ids": list(range(20)), "messages": [{"role": "user", "content": TEXTS[0]}]}
    if kind == "jsonl":
        path.write_text(json.dumps(record))
    else:
        save_file({"input_ids": torch.arange(20)[None]}, path)
    (whole,), (cut,) = (ids_of(load(path, field=field, max_length=length)) for length in (2048, 6))
    assert len(whole) > 6
    assert cut == whole[:6]


def test_batches_are_longest_first_and_padded_on_the_right(tmp_path: Path, load: Load) -> None:
    given = [[5] * length for length in (2, 9, 4, 9, 1)]
    rows = load(checkpoints.write_token_rows(tmp_path / "rows.jsonl", given), field="input_ids", batch_rows=2)
    assert [batch.lengths for batch in rows.batches] == [(9, 9), (4, 2), (1,)]
    assert "attention_mask" not in rows.inputs(0, dtype=torch.float32, device=CPU)
    padded = rows.inputs(1, dtype=torch.float32, device=CPU)
    assert padded["input_ids"].tolist() == [[5, 5, 5, 5], [5, 5, 0, 0]]
    assert padded["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert isinstance(rows, TokenRows)
    assert [ids.tolist() for ids in rows.token_ids(1)] == [[5] * 4, [5] * 2]


def test_rows_are_drawn_by_the_seed(tmp_path: Path, load: Load) -> None:
    given = checkpoints.random_rows(checkpoints.VOCABULARY, [5] * 40, seed=0)
    lines = checkpoints.write_token_rows(tmp_path / "rows.jsonl", given)
    save_file({"input_ids": torch.tensor(given)}, tmp_path / "rows.safetensors")
    for path in (lines, tmp_path / "rows.safetensors"):
        drawn = [ids_of(load(path, field="input_ids", rows=10, seed=seed)) for seed in (0, 0, 1)]
        assert drawn[0] == drawn[1] != drawn[2]
        assert len(drawn[0]) == 10
        assert all(row in given for row in drawn[0])


def test_fewer_rows_than_were_asked_for_are_warned_of(tmp_path: Path, load: Load) -> None:
    warnings: list[str] = []
    path = write(tmp_path, "txt", TEXTS)
    for wanted in (len(TEXTS), None):
        load(path, rows=wanted, warnings=warnings)
    assert warnings == []
    load(path, rows=100, warnings=warnings)
    assert warnings == ["rows.txt: has 8 rows, fewer than rows = 100; using all 8"]


def test_the_digest_is_of_the_rows_as_the_model_sees_them_and_of_their_batches(tmp_path: Path, load: Load) -> None:
    def digest(given: list[list[int]], **settings: Any) -> str:
        return load(checkpoints.write_token_rows(tmp_path / "rows.jsonl", given), field="input_ids", **settings).digest

    given = [[1, 2, 3], [4, 5, 6], [7, 8]]
    origin = digest(given)
    assert digest(given) == origin
    assert digest(given, max_length=3) == origin
    assert digest([given[2], *given[:2]]) == origin  # rows of another length in another order: sorted alike
    others = [
        digest([[1, 2, 3], [4, 5, 7], [7, 8]]),
        digest([given[1], given[0], given[2]]),
        digest([[1, 2], [3, 4, 5, 6], [7, 8]]),
        digest(given[:2]),
        digest(given, batch_rows=2),
        digest(given, max_length=2),
    ]
    assert len({origin, *others}) == 1 + len(others)


@pytest.mark.parametrize(
    ("record", "field", "message"),
    [
        ({"text": ""}, "text", "empty text"),
        ({"text": " \t"}, "text", "empty text"),
        ({"text": 7}, "text", "expected text, found 7"),
        ({"text": ["a"]}, "text", "expected text, found"),
        ({"text": "\ud800"}, "text", "half of a surrogate pair"),
        ({"input_ids": []}, "input_ids", "no tokens"),
        ({"input_ids": "1 2"}, "input_ids", "expected a list of token ids"),
        ({"input_ids": [1.0]}, "input_ids", "expected a list of token ids"),
        ({"input_ids": [True]}, "input_ids", "expected a list of token ids"),
        ({"input_ids": [[1]]}, "input_ids", "expected a list of token ids"),
        ({"input_ids": [3, 288]}, "input_ids", "token id 288 is outside the vocabulary of 288"),
        ({"input_ids": [3, -1]}, "input_ids", "token id -1 is outside"),
        ({"input_ids": [3, 10**30]}, "input_ids", "a token id is beyond any vocabulary"),
        ({"messages": "hi"}, "messages", "expected a list of messages"),
        ({"messages": 7}, "messages", "expected a list of messages"),
    ],
)
def test_a_bad_row_is_refused_by_file_and_line(
    tmp_path: Path, load: Load, record: dict[str, Any], field: str, message: str
) -> None:
    good = {"text": "fine", "input_ids": [1], "messages": [{"role": "user", "content": "fine"}]}
    path = tmp_path / "math.jsonl"
    path.write_text(f"{json.dumps(good)}\n{json.dumps(record)}\n")
    with pytest.raises(InputError, match=message) as caught:
        load(path, field=field)
    assert "math.jsonl, line 2: " in str(caught.value)


@pytest.mark.parametrize("kind", ["jsonl", "txt"])
@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_file_without_rows_is_refused(tmp_path: Path, load: Load, kind: str, content: str) -> None:
    path = tmp_path / f"rows.{kind}"
    path.write_text(content)
    with pytest.raises(InputError, match="no rows"):
        load(path)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"ids": torch.ones(2, 3).long()}, "expected a tensor input_ids, found ids"),
        ({}, "expected a tensor input_ids, found none"),
        ({"input_ids": torch.ones(3).long()}, r"input_ids has shape \[3\]; expected \(rows, positions\)"),
        ({"input_ids": torch.ones(0, 3).long()}, "has shape"),
        ({"input_ids": torch.ones(2, 0).long()}, "has shape"),
        ({"input_ids": torch.ones(2, 3)}, "expected whole numbers"),
        ({"input_ids": torch.ones(2, 3).bfloat16()}, "expected whole numbers"),
        ({"input_ids": torch.tensor([[1, 2], [3, 288]])}, "row 2: token id 288 is outside"),
        ({"input_ids": torch.tensor([[1, 2], [3, 2**32 + 5]])}, "row 2: token id 4294967301 is outside"),
        ({"input_ids": torch.tensor([[1, 2], [3, -1]]).to(torch.int16)}, "row 2: token id -1 is outside"),
    ],
)
def test_a_tensor_that_holds_no_ids_is_refused(
    tmp_path: Path, load: Load, tensors: dict[str, torch.Tensor], message: str
) -> None:
    save_file(tensors, tmp_path / "rows.safetensors")
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path / "rows.safetensors")
    assert str(caught.value).startswith(f"{tmp_path / 'rows.safetensors'}: ")


def test_a_file_that_is_no_safetensors_file_is_refused(tmp_path: Path, load: Load) -> None:
    (tmp_path / "rows.safetensors").write_bytes(b"no header")
    with pytest.raises(InputError, match=r"rows.safetensors: "):
        load(tmp_path / "rows.safetensors")


@pytest.mark.parametrize("field", ["text", "messages"])
def test_a_missing_tokenizer_is_refused_by_folder(tmp_path: Path, load: Load, field: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "hi", "messages": [{"role": "user", "content": "hi"}]}))
    with pytest.raises(InputError, match=r"no tokenizer in it: there is no tokenizer\.json") as caught:
        load(path, field=field, folder=tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_chat_template_is_refused_by_folder(tmp_path: Path, tokenizer: Path, load: Load) -> None:
    plain = AutoTokenizer.from_pretrained(tokenizer)
    plain.chat_template = None
    plain.save_pretrained(tmp_path / "plain")
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "hi"}]}))
    with pytest.raises(InputError, match="no chat template in the tokenizer"):
        load(path, field="messages", folder=tmp_path / "plain")


def test_rows_of_the_wrong_kind_for_the_model_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "txt", TEXTS)
    with pytest.raises(InputError, match=r"expected a folder of images, a .parquet of them"):
        load_calibration(
            Calibration(path=path),
            architecture=clip_vision(),
            config=CLIPVisionConfig(),
            base=tmp_path,
            seed=0,
            warn=lambda _: None,
        )


@pytest.mark.parametrize("settings", [{"dataset": "org/rows"}, {"path": "folder"}])
def test_what_cannot_be_read_here_is_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    if "path" in settings:
        settings = {"path": tmp_path}
    with pytest.raises(InputError, match=r"HF_HUB_OFFLINE=1 forbids network access|expected a file of rows"):
        load_calibration(
            Calibration(**settings), architecture=llama(), config=LlamaConfig(), base=tmp_path, seed=0, warn=print
        )


def test_rows_are_kept_in_four_bytes_a_token(tmp_path: Path, load: Load) -> None:
    rows = load(checkpoints.write_token_rows(tmp_path / "rows.jsonl", [[1, 2]]), field="input_ids")
    assert isinstance(rows, TokenRows)
    assert all(ids.dtype == np.int32 for batch in rows._batches for ids in batch)

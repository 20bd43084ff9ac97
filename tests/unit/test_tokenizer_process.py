"""A tokenizer and its chat template come from others: whatever they do ends in ids, or in a line."""

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import checkpoints
from parametrize import slow
from regstream.data import tokenizer_process
from regstream.data.row_reader import Row
from regstream.data.tokenizer_process import SharedTokenizer, TokenizerProcess
from regstream.errors import InputError

CHAT = [{"role": "user", "content": "hi"}]


def write_tokenizer(folder: Path, template: str | None = None, **changes: Any) -> Path:
    """The tests' tokenizer, with a template of its own, and keys of tokenizer.json changed."""
    checkpoints.make_tokenizer().save_pretrained(folder)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_ids_are_the_tokenizers_own(tmp_path: Path) -> None:
    with TokenizerProcess("text", write_tokenizer(tmp_path), 8) as tokenize:
        for text in checkpoints.SENTENCES:
            ids = tokenize(Row("row", text))
            assert ids.tolist() == checkpoints.make_tokenizer()(text, truncation=True, max_length=8)["input_ids"]
            assert ids.dtype == np.int32


@pytest.mark.slow
@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ 'a' * 10**10 }}", "takes more than 2 GiB of memory"),
        slow("{{ messages[0].content.ljust(10**10) }}", "takes more than 2 GiB of memory"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "takes more than 1 s"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "the chat template refused it: "),
        ("{{ raise_exception('no\n\x1b[31m') }}", "the chat template refused it: .*no"),
        ("{{ ''.__class__.__mro__ }}", "the chat template refused it: .*unsafe"),
        ("{{", "the chat template refused it: "),
    ],
)
def test_a_template_that_does_not_end_in_a_row_is_a_line(
    tmp_path: Path, template: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer_process, "_ROW_SECONDS", 1)
    begun = time.monotonic()
    with TokenizerProcess("messages", write_tokenizer(tmp_path, template), 8) as tokenize:
        with pytest.raises(InputError, match=rf"^line 7.*{reason}") as refused:
            tokenize(Row("line 7", CHAT))
        assert "\n" not in str(refused.value)
    assert time.monotonic() - begun < 10


def test_a_panic_is_a_line_and_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    damaged = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "[X]", "type_id": 0}}],
        "pair": [],
        "special_tokens": {},
    }
    folder = write_tokenizer(tmp_path, post_processor=damaged)
    with pytest.raises(InputError), TokenizerProcess("text", folder, 8) as tokenize:
        tokenize(Row("line 7", "hi"))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[" * 100_000, b"\xff\xfe{\x00}\x00", b"1" * 5000, b'{"model": {"type": "BPE"}}', b"null"]
)
def test_a_damaged_tokenizer_is_refused_by_folder(tmp_path: Path, content: bytes) -> None:
    (write_tokenizer(tmp_path) / "tokenizer.json").write_bytes(content)
    with pytest.raises(InputError, match="no tokenizer that transformers can load"):
        TokenizerProcess("text", tmp_path, 8).close()


def test_a_tokenizer_of_half_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    with (write_tokenizer(tmp_path) / "tokenizer.json").open("wb") as stream:
        stream.truncate(500 << 20)
    with pytest.raises(InputError, match=r"tokenizer.json: 500 MiB; expected at most 256 MiB"):
        TokenizerProcess("text", tmp_path, 8).close()


def test_a_pipe_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (write_tokenizer(tmp_path) / "tokenizer_config.json").unlink()
    os.mkfifo(tmp_path / "tokenizer_config.json")
    with pytest.raises(InputError, match="found a named pipe"):
        TokenizerProcess("text", tmp_path, 8).close()


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
def test_a_pointer_of_git_lfs_is_named(tmp_path: Path, name: str) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (write_tokenizer(tmp_path, "{{ messages }}") / name).write_text(pointer)
    with pytest.raises(InputError, match=f"{name}: a git-lfs pointer"):
        TokenizerProcess("messages", tmp_path, 8).close()


@pytest.mark.parametrize("kind", ["LlamaTokenizer", "BertTokenizer", "T5Tokenizer", "XLMRobertaTokenizer"])
def test_a_tokenizer_without_its_vocabulary_is_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    with pytest.raises(InputError, match="has no vocabulary: a file is missing"):
        TokenizerProcess("text", tmp_path, 8).close()


def test_a_tokenizer_of_bytes_needs_no_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "ByT5Tokenizer"}))
    with TokenizerProcess("text", tmp_path, 8) as tokenize:
        assert tokenize(Row("row", "hi")).tolist() == [107, 108, 1]


def test_code_of_a_tokenizer_is_named_and_not_run(tmp_path: Path) -> None:
    code = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    (write_tokenizer(tmp_path) / "tokenizer_config.json").write_text(json.dumps(code))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(InputError, match="without the code that its auto_map names, which is never run"):
        TokenizerProcess("text", tmp_path, 8).close()
    assert not (tmp_path / "ran").exists()


def test_sets_of_rows_with_one_tokenizer_share_its_process(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    folder, other = write_tokenizer(tmp_path, "{{ messages[0].content }}"), write_tokenizer(tmp_path / "other")
    with SharedTokenizer() as shared:
        first = shared.get("question", folder, 8)
        assert shared.get("{question} {answer}", folder, 8) is first
        for key in (("messages", folder, 8), ("question", folder, 9), ("question", other, 9)):
            different = shared.get(*key)
            assert different is not first
            assert different(Row("row", CHAT if key[0] == "messages" else "hi")).size
            first = different


def test_a_row_that_is_refused_leaves_a_shared_tokenizer_as_it_was(tmp_path: Path) -> None:
    with SharedTokenizer() as shared:
        tokenize = shared.get("text", write_tokenizer(tmp_path), 8)
        before = tokenize(Row("row", "hi"))
        with pytest.raises(InputError, match="empty text"):
            tokenize(Row("row", " "))
        assert shared.get("text", tmp_path, 8)(Row("row", "hi")).tolist() == before.tolist()

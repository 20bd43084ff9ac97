"""Paths of a machine and secrets are taken out of what is published; all else stays."""

import json
from typing import Any

import pytest

from regstream.manifest.redaction import is_local_path, redact_json, redact_paths, redact_secrets
from regstream.output.local_paths import remove_local_paths


@pytest.mark.parametrize(
    "path",
    ["/a", "~/x", "~me/x", "~me", "file:///a/b", "../x", "..", r"..\x", r"C:\x", "C:/x", r"\\server\share", " /a/b"],
)
def test_paths_of_one_machine_are_known(path: str) -> None:
    assert is_local_path(path)


@pytest.mark.parametrize("text", ["org/name", "model.bin", "https://host/x", "/", "a: b", "", "1/2", "...", "~", "C:"])
def test_other_texts_are_none(text: str) -> None:
    assert not is_local_path(text) or text == "~"


@pytest.mark.parametrize(
    ("value", "published"),
    [
        ({"a": "/home/me/llama", "b": ["~me/x/y", {"c": "file:///z/w"}]}, {"a": "llama", "b": ["y", {"c": "w"}]}),
        ({"_name_or_path": "org/x", "inner": {"_name_or_path": "/x"}, "n": 1.5}, {"inner": {}, "n": 1.5}),
        ({"a": "/home/me", "b": r"C:\Users\me", "c": "/"}, {"a": "", "b": "", "c": "/"}),
    ],
)
def test_values_are_cut_to_their_names_at_any_depth(value: Any, published: Any) -> None:
    assert redact_json(value, dropped=("_name_or_path",)) == published


def test_a_sentence_keeps_its_words() -> None:
    text = "candidate: /home/me/models/a.safetensors: tensor x has shape [2, 3]; 1/2 of them, see https://host/x"
    assert redact_paths(text) == "candidate: a.safetensors: tensor x has shape [2, 3]; 1/2 of them, see https://host/x"


def test_tokens_and_credentials_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "a token of another form")
    text = "https://me:secret@host/x hf_abcdefghijkl and a token of another form"
    assert redact_secrets(text) == "https://host/x <removed> and <removed>"


def test_settings_do_not_say_where_they_were_loaded_from() -> None:
    settings = {
        "name_or_path": "/home/me/x",
        "tokenizer_file": r"C:\x",
        "chat_template": "/x {{ a }}",
        "pad_token": "/",
    }
    kept = json.loads(remove_local_paths("tokenizer_config.json", json.dumps(settings).encode()))
    assert kept == {"chat_template": "/x {{ a }}", "pad_token": "/"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", b'{"name_or_path":   "org/x"}'),
        ("tokenizer_config.json", b"{no JSON"),
        ("tokenizer.json", b'{"name_or_path": "/home/me"}'),
        ("vocab.json", b'{"/home": 1}'),
    ],
)
def test_other_files_keep_their_bytes(name: str, content: bytes) -> None:
    assert remove_local_paths(name, content) == content


@pytest.mark.parametrize(
    ("text", "said"), [("https://me:pw@host/x", "https://host/x"), ("/a/https:/pw@h/x", "/a/https:/h/x")]
)
def test_credentials_in_addresses_are_left_out(text: str, said: str) -> None:
    assert redact_secrets(text) == said

"""Ids of special tokens in a config, and of rows, in another tokenizer's ids."""

from pathlib import Path

import numpy as np
import pytest

from regstream.data.chat_templates import read_templates, write_templates
from regstream.data.id_map import IdMap, map_rows
from regstream.errors import InputError
from regstream.validation.token_ids import with_token_ids

BEFORE, NOW = {"<s>": 1, "</s>": 2, "<image>": 7}, {"<s>": 0, "</s>": 5, "<image>": 6}


def test_a_config_has_the_ids_of_the_source_or_of_the_same_tokens() -> None:
    config = {
        "vocab_size": 8,
        "eos_token_id": [2, 3],
        "image_token_id": 7,
        "lost_token_id": 4,
        "pad_token_id": None,
        "text_config": {"bos_token_id": 1, "eos_token_id": 2},
    }
    source = {"eos_token_id": 5, "sep_token_id": 3, "text_config": {"eos_token_id": 5}}
    assert with_token_ids(config, source, BEFORE, NOW) == {
        "vocab_size": 8,
        "eos_token_id": 5,
        "image_token_id": 6,
        "pad_token_id": None,
        "sep_token_id": 3,
        "text_config": {"bos_token_id": 0, "eos_token_id": 5},
    }


@pytest.mark.parametrize(("ids", "message"), [([1, 9], "id 9 is no token"), ([8], "id 8 is '<own>', which the result")])
def test_ids_without_a_token_in_the_result_are_refused_by_row(ids: list[int], message: str) -> None:
    id_map = IdMap({**BEFORE, "<own>": 8}, NOW)
    assert id_map("row 1", np.array([2, 1, 7], dtype=np.int32)).tolist() == [5, 0, 6]
    with pytest.raises(InputError, match=rf"a.jsonl:3.*{message}"):
        map_rows(id_map, Path("a.jsonl"), [("a.jsonl:3", np.array(ids, dtype=np.int32))])


def test_stored_inputs_are_refused_where_an_id_moves() -> None:
    IdMap(BEFORE, {**BEFORE, "<new>": 8}).refuse_moved(Path("rows.safetensors"))
    with pytest.raises(InputError, match=r"rows.safetensors: .* 3 tokens, such as '<s>', have other ids"):
        IdMap(BEFORE, NOW).refuse_moved(Path("rows.safetensors"))


def test_templates_are_written_as_they_are_read(tmp_path: Path) -> None:
    entries = '[{"name": "default", "template": "one"}, {"name": "tools", "template": "two"}]'
    (tmp_path / "tokenizer_config.json").write_text(f'{{"chat_template": {entries}, "model_max_length": 8}}')
    templates = read_templates(tmp_path)
    assert templates == {"default": "one", "tools": "two"}
    write_templates(tmp_path, templates)
    assert "chat_template" not in (tmp_path / "tokenizer_config.json").read_text()
    assert (tmp_path / "chat_template.jinja").read_text() == "one"
    assert read_templates(tmp_path) == templates
    write_templates(tmp_path, {"default": "three"})
    assert read_templates(tmp_path) == {"default": "three"}

"""What is opened is a regular file; anything else would block or never end."""

import os
from pathlib import Path

import pytest

from regstream.checkpoint.checkpoint import open_checkpoint
from regstream.data.row_reader import count_rows
from regstream.errors import InputError
from regstream.evaluation.class_names import read_class_names
from regstream.evaluation.classification_head import read_classification_head
from regstream.storage.json_file import read_json_object
from regstream.storage.regular_file import check_regular


def test_a_link_to_a_file_is_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    assert check_regular(tmp_path / "link") == tmp_path / "link"


def test_a_file_too_large_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as stream:
        stream.truncate(2048)
    with pytest.raises(InputError, match=r"file: 2 KiB; expected at most 1 KiB"):
        check_regular(tmp_path / "file", 1024)


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (lambda path: read_json_object(path, "a config"), "config.json"),
        (count_rows, "rows.jsonl"),
        (count_rows, "rows.parquet"),
        (read_class_names, "classes.toml"),
        (lambda path: read_classification_head(path, 4, None), "head.safetensors"),
    ],
)
def test_a_pipe_is_refused_before_it_is_opened(tmp_path: Path, read: object, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="expected a regular file, found a named pipe"):
        read(tmp_path / name)  # type: ignore[operator]


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json", "vocab.txt"])
def test_a_pipe_in_a_checkpoints_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match=f"base: .*{name}: expected a regular file, found a named pipe"):
        open_checkpoint("base", tmp_path)


def test_an_endless_device_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").symlink_to("/dev/zero")
    with pytest.raises(InputError, match="found a device"):
        open_checkpoint("base", tmp_path)

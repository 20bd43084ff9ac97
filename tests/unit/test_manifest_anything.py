"""Whatever stands in the file, reading it gives a manifest or a `ManifestError`, and nothing else."""

import json
import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from regstream.errors import ManifestError
from regstream.manifest.read_manifest import read_manifest

MERGE = {"method": "regmean", "base": "org/base", "output": "out", "alpha": 0.5, "dtype": "bfloat16", "seed": 1}
ROWS = {"dataset": "org/rows", "config": "c", "split": "train", "field": "text", "rows": 3}
SOUND: dict[str, Any] = {
    "merge": MERGE | {"others": {"embeddings": "base", "vocabulary": "base"}},
    "architecture": {
        "blocks": "model.layers",
        "inputs": [["q", "k"], ["o"]],
        "embeddings": ["model.embed"],
        "head": ["head"],
        "renames": [["^a", "b"]],
    },
    "rules": [{"parameters": "*", "blocks": "0-3", "use": "average"}],
    "candidates": [
        {"name": "a", "model": "org/a", "adapter": "org/b@main", "weight": 2.0, "calibration": ROWS},
        {"name": "b", "adapter": "org/b", "calibration": {"dataset": "rows", "max_length": 3, "batch_rows": 2}},
    ],
    "resources": {"device": "cpu", "device_memory": "8GiB", "disk": "1TB", "workdir": "state"},
}
KEYS = sorted({"alhpa", "", "a\nb", "ключ", "rows", "path", "scale", "evaluation", "candidates", "merge", "use"})
VALUES = st.one_of(
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(10**400)]),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.sampled_from(
        ["", ".", "..", "~", "~none/x", "\0", "/", "x" * 5000, "9-1", "regmean+", "cuda:9", "1e9GB", "\u2028"]
    ),
    st.just([]),
    st.just({}),
    st.just([{}]),
    st.just([[1], {"a": [{}]}]),
)


def toml(value: Any) -> str:
    """The value as inline TOML, by which any nesting can be written on one line."""
    match value:
        case dict():
            return "{" + ", ".join(f"{quoted(key)} = {toml(inner)}" for key, inner in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case str():
            return quoted(value)
        case bool():
            return str(value).lower()
        case float():
            return repr(value)
    return hex(value) if value > 2**64 else str(value)


def quoted(text: str) -> str:
    return '"' + "".join(c if c.isalnum() and c.isascii() else f"\\U{ord(c):08x}" for c in text) + '"'


def tables(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [
        *([value] if isinstance(value, dict) and value else []),
        *(table for part in inner for table in tables(part)),
    ]


def mutate(data: st.DataObject, raw: dict[str, Any]) -> None:
    if not (choices := tables(raw)):
        return
    table = data.draw(st.sampled_from(choices))
    key = data.draw(st.sampled_from(list(table)))
    match data.draw(st.sampled_from(["delete", "rename", "retype", "add", "repeat"])):
        case "delete":
            del table[key]
        case "rename":
            table[data.draw(st.sampled_from(KEYS))] = table.pop(key)
        case "retype":
            table[key] = deepcopy(data.draw(VALUES))
        case "add":
            table[data.draw(st.sampled_from(KEYS))] = deepcopy(data.draw(VALUES))
        case "repeat":
            table[key] = [deepcopy(table[key]), deepcopy(table[key])]


def read(content: bytes) -> tuple[str, ...]:
    """The problems, each seen to be one line that names the file; none where the content can be read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "merge.toml"
        path.write_bytes(content)
        problems = refusal(path)
        assert all(len(problem.splitlines()) == 1 and problem.startswith(f"{path}:") for problem in problems)
        return problems


def refusal(path: Path) -> tuple[str, ...]:
    try:
        read_manifest(path)
    except ManifestError as error:
        return error.problems or ("",)
    return ()


def written(raw: dict[str, Any]) -> bytes:
    return "".join(f"{quoted(key)} = {toml(value)}\n" for key, value in raw.items()).encode()


def test_what_is_mutated_is_sound_at_first() -> None:
    assert read(written(SOUND)) == ()


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_mutated_manifest_is_read_or_refused(data: st.DataObject) -> None:
    raw = deepcopy(SOUND)
    for _ in range(data.draw(st.integers(1, 4))):
        mutate(data, raw)
    read(written(raw))


@settings(max_examples=50, deadline=None)
@given(st.binary())
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    assert read(content)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_damaged_file_is_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(json.dumps(SOUND).encode() if data.draw(st.booleans()) else written(SOUND))
    start = data.draw(st.integers(0, len(content) - 1))
    content[start : start + data.draw(st.integers(0, 20))] = data.draw(st.binary(max_size=5))
    read(bytes(content))

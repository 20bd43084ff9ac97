"""What is fuzzed: for each kind the inputs it starts from, what of them is damaged how, and what reads them then."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fuzz.mutations import (
    Mutation,
    mutate_bytes,
    mutate_header,
    mutate_json,
    mutate_kind,
    mutate_lines,
    mutate_toml,
)
from regstream.output.record import self_digest
from regstream.storage.journal_lines import decode, encode

_JSON = (mutate_json, mutate_json, mutate_json, mutate_bytes, mutate_kind)
_TEMPLATES = (
    "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}", "{{ 'a' * 10**9 }}",
    "{{ 'a' * 10**10 }}", "{{ '%1000000000d' % 1 }}", "{{ 'a'.center(10**9) }}", "{{ 10**10**9 }}",
    "{{ messages | map('join', 'x' * 9**8) | list }}", "{{ ''.__class__ }}", "{% include 'x' %}",
    "{{ raise_exception('no\n\x1b[31m') }}", "{{ messages[0].content * 10**8 }}",
    "{{" + "(" * 5000, "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "", "{{ undefined.attribute }}",
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """Files of the inputs `start`, one of which a case damages, and what is run on them then."""

    start: str
    files: Sequence[str]
    mutations: Sequence[Mutation]
    commands: Sequence[Sequence[str]] = (("run", "manifest.toml"),)
    prepare: Callable[[Random, Path], None] | None = None


def _calibration(random: Random, folder: Path, paths: Sequence[str], field: str = "") -> None:
    manifest = folder / "manifest.toml"
    path = random.choice(paths)
    before = '"images"\n[' if (folder / "images").exists() else '"rows.jsonl"'
    manifest.write_text(manifest.read_text().replace(before, before.replace(before.split('"')[1], path) + field))


def _template(random: Random, path: Path) -> None:
    path.write_text(random.choice(_TEMPLATES))


def _pattern(random: Random, path: Path) -> None:
    config = json.loads(path.read_text())
    patterns = (
        "(a|aa)+$", "((a{65535}){65535}){65535}", "(" * 400, "(.*)*(.*)*x", "(q|qq|.)*(_|.)*!", "[", "q_proj", "\\1",
    )  # fmt: skip
    config[random.choice(("rank_pattern", "alpha_pattern"))] = {random.choice(patterns): 2}
    config["target_modules"] = random.choice(patterns)
    path.write_text(json.dumps(config))


def _table(random: Random, path: Path) -> None:
    text = ["a row", "one more", "and another"]
    tables: tuple[dict[str, list[Any]], ...] = (
        {"text": [[value] for value in text]}, {"text": [{"a": value} for value in text]}, {"text": [None, *text[1:]]},
        {"text": [1, 2, 3]}, {"text": [value.encode() + b"\xff" for value in text]}, {"other": text}, {"text": []},
        {"text": ["x" * 30_000_000]},
    )  # fmt: skip
    pq.write_table(pa.table(random.choice(tables)), path, compression=random.choice(("snappy", "zstd", "gzip")))


def _image(random: Random, path: Path) -> None:
    size = random.choice(((1, 1), (1, 20_000), (3000, 2), (4000, 3000), (12_000, 12_000), (1, 90_000_000)))
    image = Image.new(random.choice(("1", "L", "P", "RGB")), size)
    image.save(path, random.choice(("PNG", "BMP", "TIFF")), compression="tiff_deflate")


def _settings(random: Random, path: Path) -> None:
    config = json.loads(path.read_text())
    huge = {"height": 100_000, "width": 100_000}
    config[random.choice(("size", "crop_size", "pad_size"))] = random.choice(
        (100_000, huge, {"shortest_edge": 100_000}, {"height": 8, "width": 8}, -1, 0, "x")
    )
    path.write_text(json.dumps(config))


def _line(random: Random, path: Path) -> None:
    """A journal's line with other values in it, and the digest that belongs to it."""
    lines = path.read_bytes().splitlines(keepends=True)
    index = random.randrange(len(lines))
    line = path.with_suffix(".line")
    line.write_text(json.dumps(decode(lines[index])))
    mutate_json(random, line)
    try:
        lines[index] = encode(json.loads(line.read_text(errors="replace")))
    except (ValueError, RecursionError):
        return
    finally:
        line.unlink()
    path.write_bytes(b"".join(lines))


def _record(random: Random, path: Path) -> None:
    """A result's record with other values in it, and the digest that belongs to it."""
    mutate_json(random, path)
    try:
        record = json.loads(path.read_text())
        record["sha256"] = self_digest(record)
        path.write_text(json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    except (ValueError, RecursionError, TypeError, AttributeError):
        return


_IMAGES = tuple(f"images/class{index % 2}/{index}{suffix}" for index, suffix in enumerate(
    (".png", ".jpg", ".gif", ".tiff", ".webp", ".bmp")))  # fmt: skip
_CHAT = partial(_calibration, paths=("chat.jsonl",), field='\nfield = "messages"')
_EVALUATE = (("evaluate", "manifest.toml"),)
_RECORDS = (("status", "manifest.toml"), ("verify", "merged"), ("run", "manifest.toml"), ("evaluate", "manifest.toml"))

KINDS: dict[str, Kind] = {
    "safetensors header": Kind("text", ("base/model.safetensors", "one/model.safetensors"), (mutate_header,)),
    "safetensors bytes": Kind(
        "text", ("base/model.safetensors", "one/model.safetensors"), (mutate_bytes, mutate_bytes, mutate_kind)
    ),
    "index": Kind("text", ("two/model.safetensors.index.json",), _JSON),
    "config": Kind("text", ("base/config.json", "one/config.json"), _JSON),
    "vision config": Kind("vision", ("base/config.json", "one/config.json"), _JSON),
    "tokenizer": Kind("text", ("base/tokenizer.json", "base/tokenizer_config.json"), _JSON),
    "chat template": Kind(
        "text", ("base/chat_template.jinja",), (_template, _template, mutate_bytes, mutate_kind), prepare=_CHAT
    ),
    "rows": Kind("text", ("rows.jsonl",), (mutate_lines, mutate_lines, mutate_bytes, mutate_kind)),
    "rows of text": Kind(
        "text", ("rows.txt",), (mutate_bytes, mutate_kind), prepare=partial(_calibration, paths=("rows.txt",))
    ),
    "chat rows": Kind("text", ("chat.jsonl",), (mutate_lines, mutate_lines, mutate_bytes), prepare=_CHAT),
    "ShareGPT rows": Kind(
        "text", ("shared.jsonl",), (mutate_lines,),
        prepare=partial(_calibration, paths=("shared.jsonl",), field='\nfield = "messages"'),
    ),
    "parquet rows": Kind(
        "text", ("rows.parquet",), (mutate_bytes, _table, mutate_kind),
        prepare=partial(_calibration, paths=("rows.parquet",)),
    ),
    "safetensors rows": Kind(
        "text", ("rows.safetensors",), (mutate_header, mutate_bytes),
        prepare=partial(_calibration, paths=("rows.safetensors",)),
    ),
    "images": Kind("vision", _IMAGES, (mutate_bytes, mutate_bytes, _image, mutate_kind)),
    "images in a table": Kind(
        "vision", ("images.parquet",), (mutate_bytes,), prepare=partial(_calibration, paths=("images.parquet",))
    ),
    "pixels": Kind(
        "vision", ("pixels.safetensors",), (mutate_header, mutate_bytes),
        prepare=partial(_calibration, paths=("pixels.safetensors",)),
    ),
    "image processor": Kind("vision", ("base/preprocessor_config.json",), (*_JSON, _settings)),
    "adapter config": Kind("adapters", ("one/adapter_config.json",), (*_JSON, _pattern)),
    "adapter weights": Kind("adapters", ("one/adapter_model.safetensors",), (mutate_header, mutate_bytes, mutate_kind)),
    "manifest": Kind(
        "text", ("manifest.toml",), (mutate_toml, mutate_toml, mutate_bytes),
        (("run", "manifest.toml"), ("plan", "manifest.toml")),
    ),
    "record": Kind("finished", ("merged/regstream.json",), (*_JSON, _record, _record, _record), _RECORDS),
    "other files of a result": Kind(
        "finished", ("merged/regstream.measured.json", "merged/config.json", "merged/README.md",
                     "merged/model.safetensors.index.json"), _JSON, _RECORDS,
    ),
    "shards of a result": Kind(
        "finished", ("merged/model-00001-of-00004.safetensors",), (mutate_bytes, mutate_header), _RECORDS
    ),
    "journal": Kind(
        "half", ("journal.jsonl",), (mutate_bytes, _line), (("status", "manifest.toml"), ("run", "manifest.toml"))
    ),
    "head": Kind("judged", ("head.safetensors",), (mutate_header, mutate_bytes, mutate_kind), _EVALUATE),
}  # fmt: skip

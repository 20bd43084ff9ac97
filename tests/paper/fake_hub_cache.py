"""What the paper's runs name: a client's cache of real configs and headers before holes, and data sets of few rows."""

import hashlib
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

import checkpoints
from paper.published import FIXTURES, IMAGES, TEXTS, Images, config_of, parts_of, text_tower
from regstream.manifest.references import ModelRef
from regstream.manifest.schema import Manifest

NUM_ROWS = 260  # of each training split, a few more than are taken
VOCABULARY_OF_MATH = 128_320
_ITEM_BYTES = {"F32": 4, "BF16": 2, "I64": 8}
_SHARD_BYTES = 5_000_000_000  # as `save_pretrained` cuts checkpoints
#: How many words each domain's answers have: no two as many, one of them more than are taken.
ANSWER_WORDS = {"instruction": 40, "math": 900, "coding": 90, "multilingual": 10, "safety": 25}

Tensors = Sequence[tuple[str, str, tuple[int, ...]]]  # name, dtype, shape


def fill(cache: Path, manifest: Manifest) -> None:
    """Put into the cache every model that a manifest names."""
    assert manifest.merge.base is not None
    assert manifest.merge.base.hub_id is not None
    base = manifest.merge.base.hub_id.partition("/")[2]
    _put_base(cache, manifest.merge.base, base)
    for candidate in manifest.candidates:
        assert candidate.model is not None
        _put_candidate(cache, candidate.model, base)


def write_rows(folder: Path, manifest: Manifest) -> None:
    """Write every data set that a manifest names, by its id below a folder, with files named as on the hub."""
    for candidate in manifest.candidates:
        if candidate.name in IMAGES:
            _write_images(folder, IMAGES[candidate.name])
        else:
            _write_texts(folder, candidate.name)


def _snapshot(cache: Path, reference: ModelRef) -> Path:
    """The folder that shows a repository's files at a revision."""
    assert reference.hub_id is not None
    repository = cache / f"models--{reference.hub_id.replace('/', '--')}"
    commit = hashlib.sha1(str(reference).encode()).hexdigest()
    kept = repository / "refs" / (reference.revision or "main")
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(commit)
    folder = repository / "snapshots" / commit
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write_images(rows_folder: Path, images: Images) -> None:
    folder = rows_folder / images.dataset
    for split, rows in (("train", NUM_ROWS), (images.test, 3)):
        path = folder / images.file(split)
        path.parent.mkdir(parents=True, exist_ok=True)
        values = [{"bytes": _picture(row % 7), "path": None} for row in range(rows)]
        pq.write_table(pa.table({images.image: values, images.label: [row % 2 for row in range(rows)]}), path)
    if images.revision is None:
        _describe(folder, images.config, images.folder, ("train", images.test))


def _write_texts(rows_folder: Path, domain: str) -> None:
    folder = rows_folder / "MergeBench" / f"{domain}_val"
    path = folder / "data" / "train-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    asked, answered = TEXTS[domain]
    answer = " ".join(["word"] * ANSWER_WORDS[domain])
    table = {asked: [domain] * NUM_ROWS, answered: [answer] * NUM_ROWS, "other": list(range(NUM_ROWS))}
    pq.write_table(pa.table(table), path)
    _describe(folder, None, "data", ("train",))


def _describe(folder: Path, config: str | None, data: str, splits: Iterable[str]) -> None:
    """A card that tells which files are which split's, as the hub's own libraries write it."""
    lines = ["---", "configs:", f"- config_name: {config or 'default'}", "  data_files:"]
    for split in splits:
        lines += [f"  - split: {split}", f"    path: {data}/{split}-*"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))


def _put_base(cache: Path, reference: ModelRef, model: str) -> None:
    folder = _snapshot(cache, reference)
    (folder / "config.json").write_text(json.dumps(config_of(model)))
    if not model.startswith("clip"):
        checkpoints.make_tokenizer().save_pretrained(folder)
        _write(folder, [(name, "BF16", shape) for name, shape in parts_of(model).tensors()])
        return
    settings = (FIXTURES / "preprocessor_config.json").read_text()
    (folder / "preprocessor_config.json").write_text(settings)
    # Positions are stored as well, as older versions of transformers did.
    positions = dict(parts_of(model).stem)["vision_model.embeddings.position_embedding.weight"][0]
    _write(folder, [
        *((name, "F32", shape) for name, shape in text_tower(model).items()),
        *((name, "F32", shape) for name, shape in parts_of(model).tensors()),
        ("vision_model.embeddings.position_ids", "I64", (1, positions)),
        ("text_model.embeddings.position_ids", "I64", (1, config_of(model)["text_config"]["max_position_embeddings"])),
    ])  # fmt: skip


def _put_candidate(cache: Path, reference: ModelRef, model: str) -> None:
    folder = _snapshot(cache, reference)
    config = config_of(model)
    if model.startswith("clip"):
        config = config["vision_config"] | {"architectures": ["CLIPVisionModel"], "torch_dtype": "float32"}
        _write(folder, [(name, "F32", shape) for name, shape in parts_of(model).tensors()])
    else:
        if str(reference).endswith("_math"):
            config["vocab_size"] = VOCABULARY_OF_MATH
        _write(folder, [
            (name, "BF16", (config["vocab_size"], *shape[1:]) if name in _VOCABULARY else shape)
            for name, shape in parts_of(model).tensors()
        ])  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))


_VOCABULARY = ("model.embed_tokens.weight", "lm_head.weight")


def _write(folder: Path, tensors: Tensors) -> None:
    """As one file, or as several with an index; nothing but headers takes any disk."""
    shards = list(_cut(tensors))
    if len(shards) == 1:
        _write_hollow(folder / "model.safetensors", tensors)
        return
    names = [f"model-{index:05d}-of-{len(shards):05d}.safetensors" for index in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        _write_hollow(folder / name, shard)
    weight_map = {tensor: file for file, shard in zip(names, shards, strict=True) for tensor, _, _ in shard}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def _cut(tensors: Tensors) -> Iterator[Tensors]:
    shard: list[tuple[str, str, tuple[int, ...]]] = []
    for tensor in tensors:
        if shard and sum(map(_num_bytes, [*shard, tensor])) > _SHARD_BYTES:
            yield shard
            shard = []
        shard.append(tensor)
    yield shard


def _num_bytes(tensor: tuple[str, str, tuple[int, ...]]) -> int:
    _, dtype, shape = tensor
    return math.prod(shape) * _ITEM_BYTES[dtype]


def _write_hollow(path: Path, tensors: Tensors) -> None:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, dtype, shape in tensors:
        end = begin + _num_bytes((name, dtype, shape))
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    header = json.dumps(entries).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(path, 8 + len(header) + begin)


def _picture(number: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (9, 8), (number, 2 * number, 30 * number)).save(stream, "PNG")
    return stream.getvalue()

"""`regstream plan` of every run of the paper, offline: from a cache with real configs and headers, and no weights."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import checkpoints
from merging import without_diagnostics
from paper.conftest import MANIFESTS
from paper.fake_hub_cache import ANSWER_WORDS, fill, write_rows
from paper.published import (
    IMAGES,
    PARAMETERS,
    TEXTS,
    WHOLE_PARAMETERS,
    Parts,
    config_of,
    count,
    num_tokens,
    parts_of,
    text_tower,
)
from parametrize import slow
from regstream.manifest.read_manifest import read_manifest
from regstream.planning.planning import make_plan
from regstream_cli.app import cli

RUNS = sorted(path.stem for path in (MANIFESTS / "paper").glob("*.toml"))
EVERYDAY = ("clip-b32-8",)
MIB = 1 << 20
#: A table's keys that say which rows of the hub it means.
_ROWS = re.compile(r'dataset = "([^"]+)"\n(?:config = "[^"]+"\n)?split = "([^"]+)"\n(?:revision = "[^"]+"\n)?')


def prepare(manifest: Path, cache: Path) -> str:
    """Fill the cache, and have a manifest fit any machine, with rows from files; the name of its base."""
    read = read_manifest(manifest)
    rows = cache.parent / "rows"
    fill(cache, read)
    write_rows(rows, read)
    manifest.write_text(with_resources(from_files(manifest.read_text(), rows)))
    assert read.merge.base is not None
    return str(read.merge.base.hub_id).partition("/")[2]


def with_resources(text: str) -> str:
    """A manifest with memory enough for all input groups at once, whose files' dtype is computed in on any machine."""
    dtype = "float32" if "clip" in text.lower() else "bfloat16"
    return text + f'\n[resources]\ndevice = "cpu"\nhost_memory = "64GiB"\ncompute_dtype = "{dtype}"\n'


def from_files(text: str, rows: Path) -> str:
    """A manifest whose rows come not from data sets of the hub, but from files below a folder."""
    return _ROWS.sub(partial(_file, rows), text)


def _file(rows: Path, match: re.Match[str]) -> str:
    folder, split = rows / match[1], match[2]
    (path,) = (path for path in folder.rglob("*.parquet") if split in path.relative_to(folder).as_posix())
    return f'path = "{path}"\n'


def planned(manifest: Path) -> dict[str, Any]:
    result = CliRunner().invoke(cli, ["plan", str(manifest), "--json"])
    assert result.exit_code == 0, result.stderr
    record: dict[str, Any] = json.loads(result.stdout)
    return record


def row_tokens(model: str) -> dict[str, int]:
    """How many tokens a row of each candidate has."""
    if model.startswith("clip"):
        return dict.fromkeys(IMAGES, num_tokens(model))
    tokenizer, found = checkpoints.make_tokenizer(), {}
    for candidate in read_manifest(MANIFESTS / "paper" / "mergebench-llama-3.1-8b.toml").candidates:
        assert candidate.calibration is not None
        asked, answered = TEXTS[candidate.name]
        answer = " ".join(["word"] * ANSWER_WORDS[candidate.name])
        text = candidate.calibration.field.replace(f"{{{asked}}}", candidate.name).replace(f"{{{answered}}}", answer)
        found[candidate.name] = min(2048, len(tokenizer(text)["input_ids"]))
    assert max(found.values()) == 2048
    assert len(set(found.values())) == len(found)
    return found


@pytest.mark.parametrize("model", PARAMETERS)
def test_shapes_have_as_many_parameters_as_was_published(model: str) -> None:
    shapes = dict(parts_of(model).tensors())
    assert count(shapes) == PARAMETERS[model]
    if model in WHOLE_PARAMETERS:
        assert count(shapes | text_tower(model)) == WHOLE_PARAMETERS[model]


@pytest.mark.slow
@pytest.mark.usefixtures("ample_disk")
@pytest.mark.parametrize("run", [run if run in EVERYDAY else slow(run) for run in RUNS])
def test_a_run_is_planned(run: str, copied: Path, cache: Path) -> None:
    manifest = copied / f"{run}.toml"
    model = prepare(manifest, cache)
    without_diagnostics(manifest)
    record, parts = planned(manifest), parts_of(model)
    itemsize = 4 if model.startswith("clip") else 2
    names = [candidate.name for candidate in read_manifest(manifest).candidates]
    generation = sum(256 * row_tokens(model)[name] for name in names) * _hidden(model) * itemsize
    assert record["candidates"] == names
    assert record["fits"]
    assert record["fetch_bytes"] == 0
    _check_steps(record, parts)
    _check_bytes(record, parts, len(names), itemsize, generation)
    _check_memory(record, parts, itemsize, max(_batch(model, name) for name in names))
    told = 'candidate "math": left out: tensor model.embed_tokens.weight has shape [128320, '
    assert any(line.startswith(told) for line in record["warnings"]) == (not model.startswith("clip"))


def _hidden(model: str) -> int:
    config = config_of(model)
    return int(config.get("vision_config", config)["hidden_size"])


def _batch(model: str, name: str) -> int:
    """Tokens of a candidate's batch: 32 images, or a single row of text."""
    return row_tokens(model)[name] * (32 if model.startswith("clip") else 1)


def _check_steps(record: dict[str, Any], parts: Parts) -> None:
    blocks = [f"block {index}" for index in range(parts.num_blocks)]
    assert [step["name"] for step in record["steps"]] == ["stem", *blocks, "head"]
    for step in record["steps"]:
        assert step["num_regressed"] == (len(parts.linears) if step["name"] in blocks else 0)
        assert len(step["passes"]) == (step["name"] in blocks)  # all input groups at once


def _check_bytes(record: dict[str, Any], parts: Parts, candidates: int, itemsize: int, generation: int) -> None:
    """Every block is read once a candidate, and one generation enters each; what is the base's is read once."""
    block, final_norm, head = count(parts.block), count(parts.final_norm), count(parts.head)
    is_vision = "vision" in parts.blocks
    stem = count(parts.stem) * (candidates if is_vision else 1)
    ending = final_norm if is_vision else final_norm * candidates + head
    reads = [stem, *[block * candidates] * parts.num_blocks, ending]
    found = [step["read_bytes"] for step in record["steps"]]
    entering = [0, *[generation] * parts.num_blocks, 0]
    assert found == [values * itemsize + states for values, states in zip(reads, entering, strict=True)]
    written = count(dict(parts.tensors())) * itemsize + parts.num_blocks * generation
    assert written < record["write_bytes"] < written + MIB  # headers besides


def _check_memory(record: dict[str, Any], parts: Parts, itemsize: int, batch_tokens: int) -> None:
    """A block's step holds one candidate's block, the reference, and sums over all of them; its peak is little more."""
    step = next(step for step in record["steps"] if step["name"] == record["widest"])
    linears, block = count(parts.linears), count(parts.block)
    terms = step["terms"]["host"]
    assert terms["candidate's block"] == block * itemsize
    assert terms["reference"] == linears * itemsize
    assert terms["right-hand sides"] == linears * 4
    assert terms["means"] == (block - linears) * 4
    grams = sum(width**2 for width in parts.input_widths) * 4
    panels = sum(width * 2 * 520 for width in parts.input_widths) * 4  # two matrices' blocks along the diagonal
    assert grams < terms["Gram sums"] <= grams + panels
    hidden, inner = parts.input_widths[0], parts.input_widths[-1]
    batch = batch_tokens * (3 * inner + 6 * hidden) * itemsize
    least = block * itemsize + linears * (itemsize + 4) + grams
    most = 1.2 * (least + panels + batch + 96 * MIB) + 2048 * inner * 4  # libraries, a margin for all; a scratch
    peak = step["projected_bytes"] - record["runtime_bytes"]
    assert least < peak < most


@pytest.mark.slow
@pytest.mark.usefixtures("ample_disk")
def test_twenty_candidates_take_the_memory_of_eight(copied: Path, cache: Path) -> None:
    terms = {}
    for tasks in (8, 20):
        manifest = copied / f"clip-l14-{tasks}.toml"
        prepare(manifest, cache)
        record = planned(manifest)
        terms[tasks] = [step["terms"] for step in record["steps"]]
    assert terms[8] == terms[20]


@pytest.mark.slow
@pytest.mark.parametrize("run", ["mergebench-llama-3.2-3b"])
def test_each_candidate_has_the_rows_of_its_own_domain(run: str, copied: Path, cache: Path) -> None:
    manifest = copied / f"{run}.toml"
    model = prepare(manifest, cache)
    plan = make_plan(read_manifest(manifest))
    found = {c.name: [length for batch in c.rows.batches for length in batch.lengths] for c in plan.candidates}
    assert found == {name: [length] * 256 for name, length in row_tokens(model).items()}

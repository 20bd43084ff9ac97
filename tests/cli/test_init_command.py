"""`regstream init` writes a manifest that can be run as it stands, and as it stands with every comment taken at its
word."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import Result
from pydantic import BaseModel

from regstream.manifest.architecture import ArchitectureTable
from regstream.manifest.canonical import canonical_config
from regstream.manifest.method_options import fields_of, option_fields
from regstream.manifest.read_manifest import parse_manifest, read_manifest
from regstream.manifest.references import ModelRef
from regstream.manifest.schema import Manifest
from regstream.methods import AUTO, METHODS
from regstream.models.architecture.default_policy import LANGUAGE_MODEL_POLICY

Invoke = Callable[..., Result]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with models and rows below it."""
    for name in ("models/base", "models/math", "models/code", "lora/12:30", "manifests"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("math.jsonl", "code.jsonl", "math.heldout.jsonl", "code.heldout.jsonl"):
        (tmp_path / name).write_text('{"text": "1"}\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


TWO = ("init", "--base", "models/base", "--candidate", "math=models/math", "--candidate", "code=models/code")
ROWS = ("--calibration", "math=math.jsonl", "--calibration", "code=code.jsonl")


def test_to_stdout_as_seen_from_here(invoke: Invoke, here: Path) -> None:
    result = invoke(*TWO, *ROWS)
    assert (result.exit_code, result.stderr) == (0, "")
    (here / "merge.toml").write_text(result.stdout)
    manifest = read_manifest("merge.toml")
    assert manifest.merge.method == "regmean++"
    assert manifest.merge.base == ModelRef(folder=here / "models/base")
    rows = [candidate.calibration.path for candidate in manifest.candidates if candidate.calibration]
    assert rows == [here / "math.jsonl", here / "code.jsonl"]


def test_into_another_folder_as_seen_from_there(invoke: Invoke, here: Path) -> None:
    result = invoke(*TWO, *ROWS, "-o", "manifests/merge.toml")
    assert (result.exit_code, result.stdout) == (0, "manifests/merge.toml\n")
    manifest = read_manifest("manifests/merge.toml")
    assert manifest.merge.base == ModelRef(folder=here / "models/base")
    assert "../models/math" in Path("manifests/merge.toml").read_text()
    assert manifest.merge.output == here / "manifests/merged"


def test_without_rows_it_averages_and_says_so(invoke: Invoke, here: Path) -> None:
    result = invoke(*TWO, *ROWS[:2], "-o", "merge.toml")
    assert result.exit_code == 0
    assert 'the method is "average"; for "regmean++"' in result.stderr
    assert len(result.stderr.splitlines()) == 1
    manifest = read_manifest("merge.toml")
    assert manifest.merge.method == "average"
    assert [candidate.calibration is None for candidate in manifest.candidates] == [False, True]


@pytest.mark.parametrize("method", [*METHODS, AUTO])
def test_a_method_has_its_options_with_their_defaults_at_the_margin(invoke: Invoke, here: Path, method: str) -> None:
    result = invoke(*TWO, *ROWS, "--method", method)
    assert (result.exit_code, result.stderr) == (0, "")
    merge, _, _ = result.stdout.partition("[merge.others]")
    commented = dict(re.findall(r"(?m)^# ([a-z_]+) = (\S+)", merge))
    options = METHODS[method].Options().model_dump() if method != AUTO else {}
    assert {key: json.loads(commented[key]) for key in options} == options
    assert not (option_fields().keys() - options.keys()) & commented.keys()
    assert parse_manifest(result.stdout, "merge.toml").merge.method == method


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "ace"])
def test_what_no_key_says_of_parts_outside_is_not_at_the_margin(invoke: Invoke, here: Path, method: str) -> None:
    text = invoke(*TWO, "--method", method).stdout
    assert bool(re.search(r"(?m)^# embeddings = ", text)) == (method == "ace")


def test_a_method_without_the_rows_that_it_needs_is_refused(invoke: Invoke, here: Path) -> None:
    for method in ("regmean", AUTO):
        result = invoke(*TWO, *ROWS[:2], "--method", method, "-o", "merge.toml")
        assert result.exit_code == 2
        assert f'"{method}" needs a calibration set for every candidate; add --calibration NAME=PATH for code' in (
            result.stderr
        )
        assert not (here / "merge.toml").exists()


@pytest.mark.parametrize("rows", [ROWS, ()], ids=["regmean++", "average"])
def test_every_comment_is_right(invoke: Invoke, here: Path, rows: tuple[str, ...]) -> None:
    text = invoke(*TWO, *rows).stdout
    taken, count = re.subn(r"(?m)^# (?=[a-z_]+ = |\[)", "", text)
    assert count > 20
    (here / "merge.toml").write_text(taken)
    manifest = read_manifest("merge.toml")
    asked, default = tomllib.loads(taken), tomllib.loads(text)
    assert {"candidates", "merge", "rules", "resources"} == asked.keys()
    options = {"alpha"} if rows else set()
    assert set(asked["merge"]) - set(default["merge"]) == (
        options | {"dtype", "seed", "shard_size", "others"} | {"tokenizer", "chat_template", "pad_to_multiple_of"}
    )
    assert manifest.candidates[1].calibration is not None
    assert manifest.candidates[1].evaluation is not None


@pytest.mark.parametrize("rows", [ROWS, ()], ids=["regmean++", "average"])
def test_a_commented_default_is_the_default(invoke: Invoke, here: Path, rows: tuple[str, ...]) -> None:
    text = invoke(*TWO, *rows).stdout
    lines = re.sub(r"(?s)\n# \[\[rules\]\].*?\n(?=\n)", "", joined(text)).splitlines()
    taken = [
        line if "example" in line or has_other_default(line) else re.sub(r"^# (?=[a-z_]+ = |\[)", "", line)
        for line in lines
    ]
    changed = {line.split(" = ")[0] for line, before in zip(taken, lines, strict=True) if line != before}
    assert {"seed", "embeddings", "final_norm", "head", "vocabulary", "weight", "field"} <= changed
    assert ("alpha" in changed) == bool(rows)
    manifests = [parse_manifest(each, "merge.toml") for each in (text, "\n".join(taken))]
    before, after = (without_others(canonical_config(manifest)) for manifest in manifests)
    assert after == before
    [default, explicit] = (others_of_a_language_model(manifest) for manifest in manifests)
    assert explicit == default
    assert manifests[1].candidates[0].evaluation is None or manifests[1].candidates[0].evaluation.label == "label"


def joined(text: str) -> str:
    """The text with every comment that goes on in the next line on one line."""
    return re.sub(r"\n {20,}# ", " ", text)


def has_other_default(line: str) -> bool:
    """Whether the line says in words which default it has; parts outside the blocks show it for language models."""
    return "default:" in line and not re.match(r"# (embeddings|final_norm|head) ", line)


def without_others(meant: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in meant.items() if key != "others"}


def others_of_a_language_model(manifest: Manifest) -> dict[str, str]:
    """What becomes of the parts outside the blocks."""
    asked, regresses = manifest.merge.others, manifest.merge.regresses
    defaults = LANGUAGE_MODEL_POLICY.items()
    return {part: getattr(asked, part) or (fate if regresses else "average") for part, fate in defaults}


def keys_of(table: type[BaseModel]) -> Iterator[str]:
    """The keys of a table of the schema and of those within it, but for what describes an architecture."""
    for key, field in fields_of(table).items():
        yield key
        for part in {field.annotation, *get_args(field.annotation)} - {ArchitectureTable}:
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from keys_of(part)


@pytest.mark.parametrize("models", ["models/math", ":lora/12::30"], ids=["model", "adapter"])
def test_every_key_is_mentioned(invoke: Invoke, here: Path, models: str) -> None:
    text = invoke("init", "--base", "models/base", "--candidate", f"math={models}").stdout
    keys = set(keys_of(Manifest))
    assert {"label", "text_tower", "shard_size", "vocabulary", "adapter", "parameters"} <= keys
    mentioned = set(re.findall(r"(?m)\b([a-z_]+)(?: = |\]|, |$)", text))
    assert keys - mentioned == set()


@pytest.mark.parametrize(
    ("spelled", "model", "adapter"),
    [
        ("models/math", "models/math", None),
        ("org/math@v1", "org/math@v1", None),
        ("org/math:org/lora@main", "org/math", "org/lora@main"),
        ("models/math:lora/12::30", "models/math", "lora/12:30"),
        ("lora/12::30:org/lora", "lora/12:30", "org/lora"),
        (":lora/12::30", None, "lora/12:30"),
    ],
)
def test_a_model_and_an_adapter(
    invoke: Invoke, here: Path, spelled: str, model: str | None, adapter: str | None
) -> None:
    written = tomllib.loads(invoke("init", "--base", "org/base", "--candidate", f"a={spelled}").stdout)
    [candidate] = written["candidates"]
    assert (candidate.get("model"), candidate.get("adapter")) == (model, adapter)


@pytest.mark.parametrize("spelled", ["a", "=b", "a=", "a=:", "a=b:", "a=b:c:d", "a=lora/12:30:b"])
def test_what_is_no_candidate_is_refused(invoke: Invoke, here: Path, spelled: str) -> None:
    result = invoke("init", "--base", "org/base", "--candidate", spelled)
    assert result.exit_code == 2
    assert "expected NAME=MODEL[:ADAPTER]" in result.stderr
    assert "write a colon within a path twice" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--base", "./none", "--candidate", "a=org/a"), "there is no"),
        (("--base", "org/base", "--candidate", "a b=org/a"), "a name of up to 100 letters"),
        (
            ("--base", "org/base", "--candidate", "a=org/a", "--candidate", "A=org/b"),
            "names must differ in more than case",
        ),
        (("--base", "org/base", "--candidate", "a=org/a", "--calibration", "a=none.jsonl"), "there is no"),
        (
            ("--base", "org/base", "--candidate", "a=org/a", "--calibration", "b=x.jsonl"),
            'no --candidate has the name "b"',
        ),
        (("--base", "org/base", "--candidate", "a=org/a", "--calibration", "a"), "expected NAME=PATH"),
        (("--base", "", "--candidate", "a=org/a"), "expected a path, found empty text"),
        (("--base", "org/base", "--candidate", "a=models/\udcff"), "surrogates not allowed"),
    ],
)
def test_what_could_not_be_run_is_not_written(
    invoke: Invoke, here: Path, arguments: tuple[str, ...], line: str
) -> None:
    result = invoke("init", *arguments, "-o", "merge.toml")
    assert result.exit_code == 2, result.output
    assert line in result.stderr
    assert not (here / "merge.toml").exists()


def test_nothing_is_overwritten(invoke: Invoke, here: Path) -> None:
    (here / "merge.toml").write_text("mine")
    result = invoke(*TWO, "-o", "merge.toml")
    assert result.exit_code == 2
    assert "merge.toml: exists already" in result.stderr
    assert (here / "merge.toml").read_text() == "mine"
    missing = invoke(*TWO, "-o", "nowhere/merge.toml")
    assert missing.exit_code == 2
    assert "cannot be written" in missing.stderr or "there is no" in missing.stderr


def test_quotes_and_other_letters(invoke: Invoke, here: Path) -> None:
    odd = 'models/mäth "a"\\b\x7f😀'
    (here / odd).mkdir()
    result = invoke("init", "--base", odd, "--candidate", "a=org/a", "-o", "merge.toml", "--json")
    assert json.loads(result.stdout)["manifest"] == (here / "merge.toml").read_text()
    assert read_manifest("merge.toml").merge.base == ModelRef(folder=here / odd)


def test_no_torch_for_it(environment: dict[str, str], here: Path) -> None:
    script = (
        "import sys; from regstream_cli.app import cli; "
        f"cli({[*TWO, *ROWS]!r}, standalone_mode=False); "
        "print(*{'torch', 'transformers', 'numpy'} & sys.modules.keys(), file=sys.stderr)"
    )
    environment = environment | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert "[[candidates]]" in done.stdout
    assert done.stderr.strip() == ""

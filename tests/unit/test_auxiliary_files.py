"""What lies beside a base's weights: carried as it is, or left out in a line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

import checkpoints
from altered_checkpoints import write_manifest
from regstream.manifest.read_manifest import read_manifest
from regstream.output.record import read_provenance
from regstream.planning.plan import Plan
from regstream.planning.planning import make_plan
from regstream.runtime.scheduler import run

CARRIED = (
    "tokenizer.model", "tekken.json", "sentencepiece.bpe.model", "spiece.model", "source.spm", "vocab.bpe", "vocab.txt",
    "merges.txt", "qwen.tiktoken", "special_tokens.json", "normalizer.json", "chat_template.jinja",
    "additional_chat_templates/tool_use.jinja", "processor_config.json", "preprocessor_config.json",
    "image_processor_config.json", "video_preprocessor_config.json", "modules.json", "sentence_bert_config.json",
    "config_sentence_transformers.json", "1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors",
    "LICENSE", "LICENSE.txt", "NOTICE", "USE_POLICY.md",
)  # fmt: skip
LEFT = ("modeling_own.py", "quantize_config.json", "params.json", "2_Dense/pytorch_model.bin")
UNRELATED = ("training_args.bin", "trainer_state.json", "notes.md", "runs/events.out", "original/params.json")


@pytest.fixture
def base(family: checkpoints.Folders, tmp_path: Path) -> Path:
    """A copy of a base."""
    return shutil.copytree(family.base, tmp_path / "base")


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> checkpoints.Folders:
    return checkpoints.make_family(tmp_path_factory.mktemp("along"), "llama", candidates=1, layers=1, hidden=16)


def planned(base: Path, family: checkpoints.Folders) -> Plan:
    return make_plan(read_manifest(write_manifest(base.parent, base, family.candidates[0])))


def with_config(base: Path, **keys: Any) -> None:
    file = base / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


def test_what_tokenizers_processors_and_lawyers_read_goes_along(base: Path, family: checkpoints.Folders) -> None:
    for name in (*CARRIED, *LEFT, *UNRELATED):
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_text("{}")
    plan = planned(base, family)
    run(plan)
    written = {path.relative_to(plan.output).as_posix() for path in plan.output.rglob("*") if path.is_file()}
    assert written >= set(CARRIED)
    assert not written & {*LEFT, *UNRELATED}
    assert read_provenance(plan.output)["files"].keys() >= set(CARRIED)
    for name in LEFT:
        assert [line for line in plan.warnings if line.startswith(f"base: left out: {name}: ")], name


def test_a_config_loses_what_is_true_of_the_base_alone(base: Path, family: checkpoints.Folders) -> None:
    with_config(
        base,
        auto_map={"AutoModelForCausalLM": "modeling_own.Own"},
        quantization_config={"quant_method": "fp8"},
        trust_remote_code=True,
        architectures=["Own"],
    )
    plan = planned(base, family)
    run(plan)
    config = json.loads((plan.output / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert not config.keys() & {"auto_map", "quantization_config", "trust_remote_code"}
    for key in ("auto_map", "quantization_config"):
        assert [line for line in plan.warnings if line.startswith(f"base: config.json: {key} is left out: ")]
    AutoModelForCausalLM.from_pretrained(plan.output)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"do_sample": false, "temperature": 0.6}', "transformers refuses to save it again: "),
        ('{"do_sample": true, "temperature": 0.6}', None),
    ],
)
def test_defaults_of_generation_are_carried_whatever_they_are(
    base: Path, family: checkpoints.Folders, text: str, told: str | None
) -> None:
    (base / "generation_config.json").write_text(text)
    plan = planned(base, family)
    run(plan)
    assert (plan.output / "generation_config.json").read_text() == text
    assert [str(told) in line for line in plan.warnings] == ([] if told is None else [True])
    AutoModelForCausalLM.from_pretrained(plan.output)


@pytest.mark.parametrize("text", ['{"do_sample": tru', "[1]", "null", ""])
def test_defaults_of_generation_that_keep_a_model_from_loading_are_left_out(
    base: Path, family: checkpoints.Folders, text: str
) -> None:
    (base / "generation_config.json").write_text(text)
    plan = planned(base, family)
    run(plan)
    assert not (plan.output / "generation_config.json").exists()
    (line,) = plan.warnings
    assert line.startswith("base: left out: generation_config.json: ")
    AutoModelForCausalLM.from_pretrained(plan.output)


def test_other_files_that_are_no_json_are_carried_and_named(base: Path, family: checkpoints.Folders) -> None:
    (base / "processor_config.json").write_text("{")
    plan = planned(base, family)
    assert plan.warnings == (
        "base: processor_config.json is not valid JSON; it is copied unchanged, but libraries cannot read it",
    )
    run(plan)
    assert (plan.output / "processor_config.json").read_text() == "{"


def test_code_that_a_tokenizer_names_is_said_to_be_missing(base: Path, family: checkpoints.Folders) -> None:
    (base / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["tokenization_own.Own", null]}}')
    (line,) = planned(base, family).warnings
    assert line == "base: tokenizer_config.json names code in its auto_map, which is not copied"

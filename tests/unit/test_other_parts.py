"""Parts outside the blocks: the base's, the mean, or those of the candidate that `[merge.others]` names."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, LlamaForCausalLM, LlamaModel, PreTrainedModel

import parts_of_models as parts
from altered_checkpoints import write_adapter
from regstream.errors import InputError, ManifestError
from regstream.evaluation.evaluation import evaluate
from regstream.events import Warned
from regstream.manifest.canonical import canonical_config
from regstream.manifest.non_block_parameters import NonBlockParameters
from regstream.manifest.read_manifest import read_manifest
from regstream.planning.reads import reads

HEAD, NORM, EMBEDDINGS = "lm_head.weight", "model.norm.weight", "model.embed_tokens.weight"
CLASSIFIER = "classifier.weight"
BERT: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 64,
    "max_position_embeddings": 64,
}  # fmt: skip


def bert(num_labels: int = 3, **config: Any) -> PreTrainedModel:
    return BertForSequenceClassification(BertConfig(**{**BERT, **config, "num_labels": num_labels}))


@pytest.fixture(scope="module")
def llamas(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("llamas")
    return {
        name: parts.save(folder / name, LlamaForCausalLM(parts.llama()), seed)
        for seed, name in enumerate(("base", "math", "code"))
    }


def others(llamas: dict[str, Path]) -> dict[str, Path]:
    return {name: path for name, path in llamas.items() if name != "base"}


@pytest.mark.parametrize("method", ["average", "task_arithmetic", "regmean", "regmean++"])
def test_a_part_is_the_one_of_the_candidate_that_is_named(llamas: dict[str, Path], tmp_path: Path, method: str) -> None:
    uses = {"head": "code", "embeddings": "math", "final_norm": "average"}
    plan = parts.plan_of(parts.manifest(tmp_path, llamas["base"], others(llamas), method=method, others=uses))
    result = parts.run_to_tensors(plan)
    assert torch.equal(result[HEAD], parts.tensors_of(llamas["code"])[HEAD])
    assert torch.equal(result[EMBEDDINGS], parts.tensors_of(llamas["math"])[EMBEDDINGS])
    torch.testing.assert_close(result[NORM], parts.mean([llamas["math"], llamas["code"]], NORM))


def test_a_part_is_read_from_the_named_candidate_alone(llamas: dict[str, Path], tmp_path: Path) -> None:
    manifest = parts.manifest(tmp_path, llamas["base"], others(llamas), others={"head": "code"})
    manifest.write_text(f"{manifest.read_text()}diagnostics = false\n")
    plan = parts.plan_of(manifest)
    head = plan.steps[-1]
    files = [spec.file.parent.name for specs in reads(plan, head) for spec in specs if spec.shape == (64, 16)]
    assert files == ["code"]


def test_an_adapters_candidate_counts_with_its_adapter(llamas: dict[str, Path], tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", "lm_head", 16, 64)
    path = parts.manifest(tmp_path, llamas["base"], others(llamas), others={"head": "code"}, adapters={"code": adapter})
    plan = parts.plan_of(path)
    expected = torch.empty(64, 16)
    plan.candidates[1].checkpoint.read({HEAD: expected})
    assert not torch.equal(expected, parts.tensors_of(llamas["code"])[HEAD])
    assert torch.equal(parts.run_to_tensors(plan)[HEAD], expected)


def test_the_choice_is_in_the_identity_by_name(llamas: dict[str, Path], tmp_path: Path) -> None:
    found = [
        canonical_config(read_manifest(parts.manifest(tmp_path, llamas["base"], others(llamas), others={"head": use})))
        for use in ("math", "code", "base")
    ]
    assert [config["others"]["head"] for config in found] == ["math", "code", "base"]


@pytest.mark.parametrize(
    ("use", "message"),
    [
        ("maht", r'head: expected "base", "average" or a candidate\'s name, found "maht"; did you mean "math"\?'),
        ("averge", r'found "averge"; did you mean "average"\?'),
        ("nothing", r'or a candidate\'s name, found "nothing"$'),
    ],
)
def test_another_value_is_refused_with_the_nearest_name(
    llamas: dict[str, Path], tmp_path: Path, use: str, message: str
) -> None:
    with pytest.raises(ManifestError, match=message):
        read_manifest(parts.manifest(tmp_path, llamas["base"], others(llamas), others={"head": use}))


@pytest.mark.parametrize("name", ["base", "average"])
def test_no_candidate_has_the_name_of_another_choice(llamas: dict[str, Path], tmp_path: Path, name: str) -> None:
    with pytest.raises(ManifestError, match=f'"{name}" has a meaning of its own in \\[merge.others\\]'):
        read_manifest(parts.manifest(tmp_path, llamas["base"], {name: llamas["math"]}))


def test_what_the_schema_takes_is_a_name() -> None:
    assert NonBlockParameters(head="math").head == "math"
    with pytest.raises(ValueError, match="pattern"):
        NonBlockParameters(head="not a name")


def test_a_head_that_is_not_read_may_have_another_shape_or_be_missing(tmp_path: Path) -> None:
    base, math = (parts.save(tmp_path / name, bert(), seed) for seed, name in enumerate(("base", "math")))
    wide = parts.save(tmp_path / "wide", bert(num_labels=5), 2)
    headless = parts.save(tmp_path / "headless", bert(), 3, lambda t: [t.pop(n) for n in list(t) if "classifier" in n])
    candidates = {"math": math, "wide": wide, "headless": headless}
    for use in ("base", "math"):
        plan = parts.plan_of(parts.manifest(tmp_path, base, candidates, others={"head": use}))
        taken = "the base's" if use == "base" else 'candidate "math"\'s'
        told = "\n".join(plan.warnings)
        assert f'candidate "wide": left out: tensor {CLASSIFIER} has shape [5, 16], the base\'s [3, 16]' in told
        assert f'candidate "headless": lacks {CLASSIFIER}; the result has {taken}' in told
    result = parts.run_to_tensors(plan)
    assert torch.equal(result[CLASSIFIER], parts.tensors_of(math)[CLASSIFIER])
    name = "bert.encoder.layer.0.output.LayerNorm.weight"
    torch.testing.assert_close(result[name], parts.mean([math, wide, headless], name))


@pytest.mark.parametrize("use", ["average", "wide"])
def test_a_head_that_is_read_must_be_there_in_the_bases_shape(tmp_path: Path, use: str) -> None:
    base = parts.save(tmp_path / "base", bert(), 0)
    wide = parts.save(tmp_path / "wide", bert(num_labels=5), 1)
    with pytest.raises(InputError, match=r'has shape \[5.*\].*\[merge.others\] head = "base", or the name') as caught:
        parts.plan_of(parts.manifest(tmp_path, base, {"wide": wide, "math": base}, others={"head": use}))
    assert str(caught.value).startswith('candidate "wide": ')
    assert "\n" not in str(caught.value)


def test_a_missing_head_cannot_be_averaged(tmp_path: Path) -> None:
    base = parts.save(tmp_path / "base", bert(), 0)
    headless = parts.save(tmp_path / "headless", bert(), 1, lambda t: t.pop(CLASSIFIER))
    with pytest.raises(InputError, match=rf"tensor {CLASSIFIER} is missing.*head = \"base\""):
        parts.plan_of(parts.manifest(tmp_path, base, {"headless": headless}))


def test_a_bare_model_is_a_candidate_where_the_head_is_the_bases(llamas: dict[str, Path], tmp_path: Path) -> None:
    bare = parts.save(tmp_path / "bare", LlamaModel(parts.llama()), 5)
    plan = parts.plan_of(parts.manifest(tmp_path, llamas["base"], {"bare": bare}, method="regmean++"))
    assert any(f'"bare": lacks {HEAD}; the result has the base\'s' in line for line in plan.warnings)
    assert torch.equal(parts.run_to_tensors(plan)[HEAD], parts.tensors_of(llamas["base"])[HEAD])


@pytest.mark.parametrize("key", ["id2label", "label2id"])
def test_classes_in_another_order_are_named_where_the_head_is_averaged(tmp_path: Path, key: str) -> None:
    names = ["negative", "neutral", "positive"]
    folders = []
    for seed, own in enumerate((names, names, names[::-1])):
        folder = parts.save(tmp_path / str(seed), bert(), seed)
        ids = {str(index): name if key == "id2label" else f"LABEL_{index}" for index, name in enumerate(own)}
        numbers = {name: index for index, name in enumerate(own)}
        folders.append(parts.edit_config(folder, id2label=ids, label2id=numbers))
    candidates = {"same": folders[1], "turned": folders[2]}
    plan = parts.plan_of(parts.manifest(tmp_path, folders[0], candidates))
    [line] = [line for line in plan.warnings if "class 0" in line]
    assert line.startswith('candidate "turned": config.json: class 0 is "positive", and "negative" in base')
    plan = parts.plan_of(parts.manifest(tmp_path, folders[0], candidates, others={"head": "base"}))
    assert not any("class 0" in line for line in plan.warnings)


def test_a_candidate_without_its_head_is_not_evaluated_nor_is_the_mean(llamas: dict[str, Path], tmp_path: Path) -> None:
    bare = parts.save(tmp_path / "bare", LlamaModel(parts.llama()), 5)
    path = parts.manifest(tmp_path, llamas["base"], {"bare": bare, "math": llamas["math"]}, method="regmean++")
    rows = f'[candidates.evaluation]\npath = "{tmp_path / "math.jsonl"}"\nfield = "input_ids"\n'
    path.write_text(path.read_text().replace("[resources]", f"{rows}[resources]"))
    plan, told = parts.plan_of(path), list[str]()
    parts.run_to_tensors(plan)
    found = evaluate(plan, listener=lambda event: told.append(event.message) if isinstance(event, Warned) else None)
    assert [row.model for row in found.rows] == ["base", "math", "regmean++"]
    assert f'mean is not evaluated: candidate "bare" has no {HEAD}' in told


def test_where_candidates_run_from_their_own_embeddings_these_are_read(llamas: dict[str, Path], tmp_path: Path) -> None:
    without = parts.save(tmp_path / "without", LlamaForCausalLM(parts.llama()), 5, lambda t: t.pop(EMBEDDINGS))
    candidates = {"without": without, "math": llamas["math"]}
    plan = parts.plan_of(parts.manifest(tmp_path, llamas["base"], candidates, method="regmean++"))
    assert any(f'"without": lacks {EMBEDDINGS}; the result has the base\'s' in line for line in plan.warnings)
    assert parts.run_to_tensors(plan)[EMBEDDINGS].equal(parts.tensors_of(llamas["base"])[EMBEDDINGS])
    with pytest.raises(InputError, match=f"tensor {EMBEDDINGS} is missing"):
        parts.plan_of(parts.manifest(tmp_path, llamas["base"], candidates, method="regmean"))

"""What a default leaves out though candidates tuned it is named, with the key; what a manifest asks for is not."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import checkpoints
from merging import Merge, make_merge

TUNED = {"embeddings": "model.embed_tokens.weight", "head": "lm_head.weight"}


def same_as_base(merge: Merge, *but: str) -> None:
    """Give every candidate the base's embeddings and head, and the last one tuned ones of these."""
    origin = load_file(merge.folders.base / "model.safetensors")
    for folder in merge.folders.candidates:
        tensors = load_file(folder / "model.safetensors")
        is_last = folder == merge.folders.candidates[-1]
        kept = {n: origin[n].clone() for p, n in TUNED.items() if not (is_last and p in but)}
        save_file(tensors | kept, folder / "model.safetensors", metadata={"format": "pt"})


def told(merge: Merge) -> list[str]:
    return [
        line
        for line in merge.plan().warnings
        if "differs from the base's" in line or "tokenizer" in line or "template" in line
    ]


@pytest.mark.parametrize("part", TUNED)
def test_a_tuned_part_that_defaults_to_the_bases_is_named(tmp_path: Path, part: str) -> None:
    merge = make_merge(tmp_path, layers=1, candidates=2)
    same_as_base(merge, part)
    [line] = told(merge)
    assert line.startswith('candidate "task1": the ')
    assert f'[merge.others] {part} = "average"' in line


def test_nothing_is_said_of_what_is_the_bases(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, layers=1, candidates=2)
    same_as_base(merge)
    assert told(merge) == []


@pytest.mark.parametrize("method", ["average", "task_arithmetic", "regmean++"])
def test_nothing_is_said_where_the_manifest_or_the_method_says_it(tmp_path: Path, method: str) -> None:
    merge = make_merge(tmp_path, layers=1, merge={"method": method})
    others = "".join(f'others.{part} = "base"\n' for part in TUNED) if method == "regmean++" else ""
    merge.manifest.write_text(merge.manifest.read_text().replace('"merged"\n', f'"merged"\n{others}'))
    assert told(merge) == []


def test_a_rounded_copy_is_not_tuned(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, layers=1, candidates=1)
    same_as_base(merge)
    file = merge.folders.candidates[0] / "model.safetensors"
    save_file({n: t.to(torch.bfloat16) for n, t in load_file(file).items()}, file, metadata={"format": "pt"})
    assert told(merge) == []


@pytest.mark.parametrize("family", ["clip", "bert"])
def test_of_vision_models_the_final_norm_is_named(tmp_path: Path, family: checkpoints.Family) -> None:
    lines = told(make_merge(tmp_path, family, layers=1))
    assert ([line for line in lines if "final norm" in line] != []) == (family == "clip")
    assert not any("embedding" in line for line in lines)


def test_a_chat_template_of_a_candidates_own_is_named(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, layers=1, candidates=2)
    same_as_base(merge)
    (merge.folders.candidates[1] / "chat_template.jinja").write_text("{{ messages }}")
    [line] = told(merge)
    assert line.startswith('candidate "task1": the chat template differs from the base')
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        file = merge.folders.base / name
        config = json.loads(file.read_text()) if file.suffix == ".json" else None
        file.unlink(missing_ok=True)
        if config is not None:
            file.write_text(json.dumps({key: value for key, value in config.items() if key != "chat_template"}))
    [line] = [line for line in told(merge) if "no chat template" in line]
    assert line.startswith('candidates "task0", "task1": the base has no chat template')


def test_tokens_that_a_candidate_added_are_named(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, layers=1, candidates=2)
    same_as_base(merge)
    file = merge.folders.candidates[0] / "tokenizer.json"
    content = json.loads(file.read_text())
    content["added_tokens"].append({**content["added_tokens"][0], "id": 288, "content": "<|im_start|>"})
    file.write_text(json.dumps(content))
    [line] = told(merge)
    assert "task0" in line
    assert "adds 1 token that the base's lacks ('<|im_start|>')" in line

"""Before a run, `plan` names a candidate that changes nothing, and a change that a rule discards."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

import checkpoints
from altered_checkpoints import edited, write_adapter, write_manifest

Invoke = Callable[..., Result]
RULES = """
[[rules]]
parameters = "*.self_attn.*"
blocks = "1"
use = "base"
[[rules]]
parameters = "model.norm.weight"
use = "base"
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> checkpoints.Folders:
    return checkpoints.make_family(tmp_path_factory.mktemp("tuned"), "llama", candidates=2, layers=2, hidden=16)


def warned(result: Result) -> list[str]:
    """What was said, without the program's name."""
    assert result.exit_code == 0, result.stderr
    return [line.removeprefix("regstream: warning: ") for line in result.stderr.splitlines()]


def test_a_candidate_that_equals_the_base(invoke: Invoke, folders: checkpoints.Folders, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, folders.base, edited(folders.base, tmp_path / "copy"), folders.candidates[0])
    assert warned(invoke("plan", manifest)) == [
        'candidate "task0": its weights equal the base\'s, as far as compared; was its training lost in saving?'
    ]


def test_an_adapter_of_zeros(invoke: Invoke, folders: checkpoints.Folders, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", "model.layers.0.mlp.up_proj", 16, 32)
    zeros = edited(adapter, tmp_path / "zeros", lambda tensors: [tensor.zero_() for tensor in tensors.values()])
    manifest = write_manifest(
        tmp_path, folders.base, folders.base, folders.candidates[0], adapters={folders.base.name: zeros}
    )
    assert warned(invoke("plan", manifest)) == [
        'candidate "task0": its adapter changes nothing: all factors B are zero; was its training lost in saving?'
    ]


def test_changes_that_a_rule_discards(invoke: Invoke, folders: checkpoints.Folders, tmp_path: Path) -> None:
    attention = "model.layers.1.self_attn.q_proj.weight", "model.layers.1.self_attn.o_proj.weight"
    tuned = edited(folders.base, tmp_path / "tuned", lambda t: [t[name].add_(1) for name in attention])
    manifest = write_manifest(tmp_path, folders.base, tuned, folders.candidates[0], table=RULES)
    expected = [
        'candidate "task0": rules[0] \'*.self_attn.*\': use = "base": discards changes of 2 tensors:'
        " model.layers.*.self_attn.q_proj.weight, model.layers.*.self_attn.o_proj.weight",
        'candidate "task1": rules[0] \'*.self_attn.*\': use = "base": discards changes of 4 tensors:'
        " model.layers.*.self_attn.* (4 tensors)",
        'candidate "task1": rules[1] \'model.norm.weight\': use = "base": discards changes of 1 tensor:'
        " model.norm.weight",
    ]
    assert warned(invoke("plan", manifest)) == expected
    assert json.loads(invoke("plan", manifest, "--json").stdout)["warnings"] == expected


def test_candidates_with_the_same_changes_share_a_line(
    invoke: Invoke, folders: checkpoints.Folders, tmp_path: Path
) -> None:
    manifest = write_manifest(tmp_path, folders.base, *folders.candidates, table=RULES)
    found = [line.partition(": ")[0] for line in warned(invoke("plan", manifest))]
    assert found == ['candidates "task0", "task1"'] * 2


def test_nothing_is_said_of_a_rule_that_discards_nothing(
    invoke: Invoke, folders: checkpoints.Folders, tmp_path: Path
) -> None:
    tuned = edited(folders.base, tmp_path / "tuned", lambda t: t["model.layers.0.mlp.up_proj.weight"].add_(1))
    manifest = write_manifest(tmp_path, folders.base, tuned, table=RULES)
    assert warned(invoke("plan", manifest)) == []

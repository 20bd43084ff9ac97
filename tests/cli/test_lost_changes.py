"""Candidates that change nothing, and changes that are lost: `plan` names them before a run, `run` at its end."""

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


def test_a_run_names_at_its_end_what_was_lost(invoke: Invoke, folders: checkpoints.Folders, tmp_path: Path) -> None:
    table = '[[rules]]\nparameters = "*.self_attn.*"\nblocks = "1"\nuse = "base"\n'
    copy = edited(folders.base, tmp_path / "copy")
    manifest = write_manifest(tmp_path, folders.base, copy, folders.candidates[0], table=table)
    result = invoke("run", manifest, "--json")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    committed = max(index for index, event in enumerate(events) if event["event"] == "step_committed")
    lost = [event["message"] for event in events[committed:] if event["event"] == "warned"]
    assert lost[0] == 'candidate "task0" equals the base in every parameter: it adds nothing to the merge'
    assert lost[1].startswith('candidate "task1": its change of model.layers.*.self_attn.* (4 tensors) (')
    assert len(lost) == 2
    assert events[-1]["event"] == "run_finished"
    lines = result.stderr.splitlines()
    assert lines[-6] == f"regstream: warning: {lost[1]}"
    assert [line.split()[1] for line in lines[-5:]] == ["result", "kept", "worst", "cost", "next"]
    assert invoke("run", manifest).stderr.splitlines()[-1].endswith("already finished; nothing to do")


BY_RULE = 'candidates "task0" (100 % of its whole change), "task1" ('


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ('others.head = "base"\n', []),
        ('[[rules]]\nparameters = "lm_head.*"\nuse = "base"\n', [BY_RULE]),
    ],
    ids=["others", "rule"],
)
def test_a_part_that_the_manifest_takes_from_the_base_is_not_named_again(
    invoke: Invoke, folders: checkpoints.Folders, tmp_path: Path, keys: str, expected: list[str]
) -> None:
    tuned = edited(folders.base, tmp_path / "tuned", lambda tensors: tensors["lm_head.weight"].mul_(2))
    manifest = write_manifest(tmp_path, folders.base, tuned, folders.candidates[0], merge=keys)
    lost = [line for line in warned(invoke("run", manifest)) if " lost: the result has the base's" in line]
    assert len(lost) == len(expected)
    assert all(line.startswith(start) for line, start in zip(lost, expected, strict=True))

"""A summary of an architecture says what becomes of what, by the steps' own rules."""

from pathlib import Path

from merging import make_merge
from regstream.events import Event, Warned
from regstream.planning.planning import make_plan
from tiny_merge import make_tiny_merge
from tiny_models.registry import TINY_MODELS


def test_a_part_is_split_where_a_rule_splits_it(tmp_path: Path) -> None:
    rule = '[[rules]]\nparameters = "*wpe*"\nuse = "average"\n'
    found = make_merge(tmp_path, "gpt2", layers=2, candidates=2, rules=rule).plan().architecture
    embeddings = {part.rule: part.names for part in found.parts if part.part == "embeddings"}
    assert embeddings == {"average": ("transformer.wpe.weight",), "base": ("transformer.wte.weight",)}


def test_a_part_of_one_candidate_has_its_name(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, "llama", layers=2, candidates=2, rules='others.head = "task1"\n')
    rules = {part.part: part.rule for part in merge.plan().architecture.parts}
    assert rules == {"embeddings": "base", "final_norm": "average", "head": "task1"}


def test_a_rule_that_takes_the_base_is_said(tmp_path: Path) -> None:
    merge = make_tiny_merge(tmp_path, TINY_MODELS["lfm2"])
    text = merge.manifest.read_text()
    rule = '[[rules]]\nparameters = "*.conv.conv.*"\nblocks = "0"\nuse = "base"\n'
    merge.manifest.write_text(text.replace("\n[[candidates]]", f"\n{rule}\n[[candidates]]", 1))
    told: list[Event] = []
    plan = make_plan(merge.read(), listener=told.append)
    assert {(each.rule, each.names, each.num_matrices) for each in plan.architecture.not_regressed} == {
        ("base", "model.layers.*.conv.conv.weight", 1),
        ("average", "model.layers.*.conv.conv.weight", 1),
    }
    lines = [event.message for event in told if isinstance(event, Warned) and event.in_plan]
    assert sorted(lines) == [
        "not regressed, so averaged: model.layers.*.conv.conv.weight: a convolution",
        "not regressed, so the base's: model.layers.*.conv.conv.weight: a convolution",
    ]
    assert set(lines) <= set(plan.warnings)


def test_what_is_averaged_is_not_called_left_out(tmp_path: Path) -> None:
    merge = make_tiny_merge(tmp_path, TINY_MODELS["lfm2"])
    merge.manifest.write_text(merge.manifest.read_text().replace('"regmean++"', '"average"'))
    found = merge.plan().architecture
    assert not found.regresses
    assert not found.not_regressed

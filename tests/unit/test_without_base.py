"""Merges without a base: what is refused, what the result has in its place, and what is said of it."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

import checkpoints
from adapters import make_adapter
from merging import Merge, make_merge, read_result, worst_difference
from regstream import api
from regstream.errors import ManifestError
from regstream.events import Event, Warned
from regstream.manifest.read_manifest import parse_manifest
from regstream.methods import METHODS
from regstream.methods.method import MethodOptions

HELD_OUT = '[candidates.evaluation]\npath = "held-out.jsonl"\nfield = "input_ids"'


def without_base(folder: Path, method: str = "average", **options: object) -> Merge:
    """A merge whose manifest names no base, and whose base is nowhere."""
    merge = make_merge(
        folder, layers=2, candidates=2, merge={"method": method, **options}, candidate=lambda _: HELD_OUT
    )
    checkpoints.write_token_rows(folder / "held-out.jsonl", checkpoints.random_rows(checkpoints.VOCABULARY, [9, 12], 1))
    text = re.sub(r"(?s)\[candidates.calibration\].*?(?=\n\n)", "", merge.manifest.read_text())
    merge.manifest.write_text(text.replace('base = "base"\n', ""))
    shutil.rmtree(merge.folders.base)
    return merge


def mean(merge: Merge) -> dict[str, torch.Tensor]:
    first, second = (dict(checkpoints.load(folder).named_parameters()) for folder in merge.folders.candidates)
    return {name: ((tensor + second[name]) / 2).detach() for name, tensor in first.items()}


def test_a_mean_without_a_base(tmp_path: Path) -> None:
    merge = without_base(tmp_path)
    events: list[Event] = []
    plan = api.plan(merge.read(), listener=events.append)
    output = api.merge(plan, listener=events.append)
    assert [event.message for event in events if isinstance(event, Warned)] == [
        'no base: class, config and tokenizer of the result are those of candidate "task0"'
    ]
    assert worst_difference(read_result(output), mean(merge))[0] < 1e-6
    assert api.verify(output).problems == ()
    record = json.loads((output / "regstream.json").read_text())
    assert record["base"] is None
    assert all(step["changes"] == [] for step in record["steps"])
    assert "A merge of 2 fine-tuned checkpoints with average, made by" in (output / "README.md").read_text()
    assert "fine-tuned from" not in api.report(output).to_html()
    assert api.is_finished(merge.read())


def test_its_evaluation_has_no_column_of_a_base(tmp_path: Path) -> None:
    merge = without_base(tmp_path, "slerp", t=0.25)
    api.merge(api.plan(merge.read()))
    evaluation = api.evaluate(api.plan(merge.read(), of_result=True))
    assert [row.model for row in evaluation.rows] == ["task0", "task1", "mean", "slerp"]
    api.add_results(merge.output, evaluation=evaluation)
    scores = api.report(merge.output).scores
    assert scores is not None
    assert scores.average.base is None
    api.report(merge.output).to_html()


def test_the_first_candidate_may_be_an_adapter_on_a_model(tmp_path: Path) -> None:
    merge = without_base(tmp_path)
    make_adapter(merge.folders.candidates[0], tmp_path / "lora", target_modules=["q_proj"])
    model = f'model = "{merge.folders.candidates[0].name}"'
    text = merge.manifest.read_text()
    merge.manifest.write_text(text.replace(model, f'{model}\nadapter = "lora"'))
    output = api.merge(api.plan(merge.read()))
    plain = mean(merge)
    differing = {name for name, tensor in read_result(output).items() if not torch.allclose(tensor, plain[name])}
    assert differing == {f"model.layers.{block}.self_attn.q_proj.weight" for block in range(2)}


WEIGHT_OF_MLP = '[[rules]]\nparameters = "*.mlp.*"\ncandidate = "task0"\nweight = 0\n\n'


def test_weights_decide_nothing_of_slerp(tmp_path: Path) -> None:
    merge = without_base(tmp_path, "slerp")
    expected = {name: tensor.clone() for name, tensor in read_result(api.merge(api.plan(merge.read()))).items()}
    text = merge.manifest.read_text()
    text = text.replace("[[candidates]]", f"{WEIGHT_OF_MLP}[[candidates]]", 1)
    merge.manifest.write_text(re.sub("(name = .*)", "\\1\nweight = 0", text).replace('"merged"', '"weighted"'))
    plan = api.plan(merge.read())
    assert plan.warnings[1:] == (
        "rules[0] '*.mlp.*': weight of \"task0\" has no effect on the parameters that it matches",
        '[[candidates]] weight of "task0", "task1" has no effect: method "slerp" has no weights',
    )
    found = read_result(api.merge(plan))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert plan.read_bytes == sum(candidate.checkpoint.num_bytes_read for candidate in plan.candidates)


CANDIDATES = '[[candidates]]\nname = "a"\nmodel = "org/a"\n[[candidates]]\nname = "b"\nmodel = "org/b"\n'


@pytest.mark.parametrize(
    ("method", "text", "expected"),
    [
        ("ties", "", "[merge] base: missing; expected a folder or a hub id: the checkpoint that the candidates were"),
        ("auto", "", '; only "average" and "slerp" merge without one'),
        ("average", '[[rules]]\nparameters = "*"\nuse = "base"\n', 'rules[0]: use: found "base", but [merge] names no'),
        (
            "slerp",
            '[merge.others]\nhead = "base"\n',
            '[merge.others] head: found "base", but [merge] names no base; name',
        ),
        ("slerp", '[merge.others]\nvocabulary = "base"\n', 'name one, or write "same"'),
        (
            "average",
            '[[candidates]]\nname = "c"\nadapter = "org/c"\n',
            'candidates[0] "c": model: missing; [merge] names no base that the adapter could be on',
        ),
        (
            "slerp",
            '[[candidates]]\nname = "c"\nmodel = "org/c"\n',
            'candidates: expected 2 [[candidates]] tables with the method "slerp", found 3',
        ),
    ],
)
def test_what_needs_a_base_is_refused(method: str, text: str, expected: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(f'[merge]\nmethod = "{method}"\noutput = "o"\n{text}{CANDIDATES}', "merge.toml")
    assert expected in "\n".join(caught.value.problems)


def test_model_stock_takes_two_at_least() -> None:
    text = (
        '[merge]\nmethod = "model_stock"\nbase = "org/b"\noutput = "o"\n[[candidates]]\nname = "a"\nmodel = "org/a"\n'
    )
    with pytest.raises(
        ManifestError, match=r'expected at least 2 \[\[candidates\]\] tables with the method "model_stock"'
    ):
        parse_manifest(text, "merge.toml")


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_a_method_that_needs_no_base_reads_none(method: type) -> None:
    made = method(getattr(method, "Options", MethodOptions)())
    assert made.needs_base or (made.combine_reads(2).base == 0 and not made.needs_calibration())

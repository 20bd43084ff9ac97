"""Candidates that added tokens of their own, merged into a result that knows the tokens of all of them, or of one."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

import checkpoints
import regstream
from adapters import LINEARS, make_adapter
from added_tokens import add_tokens, rows_in, tokenizer_in
from merging import Merge, make_merge, read_result
from regstream.checkpoint.row_map import RowMap
from regstream.errors import InputError, ManifestError, ResumeError
from regstream.events import StepCommitted
from regstream.planning.memory_terms import memory_terms
from tiny_merge import make_tiny_merge
from tiny_models.sequence_to_sequence import ENCODER_DECODERS

SHARED = "<|shared|>"
#: Added by the first and by the second candidate: the shared token has other ids in both, and one is no special token.
ADDED: tuple[list[str | AddedToken], ...] = (
    ["<|a|>", SHARED],
    [SHARED, AddedToken("<|b|>", special=False, lstrip=True, normalized=False)],
)
N = checkpoints.VOCABULARY


def merge_of(folder: Path, family: checkpoints.Family = "llama", *, adds: bool = True, **merge: Any) -> Merge:
    made = make_merge(folder, family, layers=1, candidates=2, candidate=lambda i: f"weight = {i + 1}", merge=merge)
    for index, (path, tokens) in enumerate(zip(made.folders.candidates, ADDED, strict=True)):
        if adds:
            add_tokens(path, tokens, seed=index, multiple=64 if index else None)
    return made


def blocks_of(output: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in read_result(output).items() if "layers" in name}


@pytest.mark.simulated
@pytest.mark.parametrize("family", ["llama", "llama-tied"])
@pytest.mark.parametrize("method", ["regmean++", "average", "ties"])
def test_a_union_knows_the_tokens_of_all_candidates(tmp_path: Path, method: str, family: checkpoints.Family) -> None:
    for name in ("union", "plain"):
        (tmp_path / name).mkdir()
    merge = merge_of(tmp_path / "union", family, method=method, tokenizer="union")
    output = merge.run()
    assert regstream.verify(output).problems == ()
    tokenizer = tokenizer_in(output)
    ids = tokenizer(f"<|a|>{SHARED} The river <|b|>", add_special_tokens=False)["input_ids"]
    assert (ids[:2], ids[-1], len(tokenizer)) == ([N, N + 1], N + 2, N + 3)
    assert tokenizer.added_tokens_decoder[N + 2].lstrip
    assert not tokenizer.added_tokens_decoder[N + 2].special
    assert tokenizer.decode(ids, skip_special_tokens=True).strip().endswith("<|b|>")
    model: Any = AutoModelForCausalLM.from_pretrained(output)
    assert model.generate(torch.tensor([ids]), max_new_tokens=4, do_sample=False).shape == (1, len(ids) + 4)
    rows, one, two = (rows_in(path) for path in (output, *merge.folders.candidates))
    plain = merge_of(tmp_path / "plain", family, adds=False, method=method).run()
    without = rows_in(plain)
    for part in rows:
        assert rows[part].shape[0] == N + 3
        torch.testing.assert_close(rows[part][N], one[part][N], rtol=0, atol=1e-6)
        torch.testing.assert_close(rows[part][N + 1], (one[part][N + 1] + 2 * two[part][N]) / 3, rtol=0, atol=1e-6)
        torch.testing.assert_close(rows[part][N + 2], two[part][N + 1], rtol=0, atol=1e-6)
        if method != "ties":  # which trims by the sizes of all values of a tensor
            assert torch.equal(rows[part][:N], without[part])
    merged, expected = blocks_of(output), blocks_of(plain)
    assert all(torch.equal(merged[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("weight", "of_first"), [("9", 9 / 11), ("0", 0.0)])
def test_rows_that_the_base_lacks_have_the_weights_of_rules(tmp_path: Path, weight: str, of_first: float) -> None:
    merge = merge_of(tmp_path, method="task_arithmetic", tokenizer="union")
    rule = f'[[rules]]\nparameters = "*embed_tokens*"\ncandidate = "task0"\nweight = {weight}\n\n'
    merge.manifest.write_text(merge.manifest.read_text().replace("[[candidates]]", f"{rule}[[candidates]]", 1))
    rows, one, two = (rows_in(path) for path in (merge.run(), *merge.folders.candidates))
    for part, share in (("embeddings", of_first), ("head", 1 / 3)):
        expected = share * one[part][N + 1] + (1 - share) * two[part][N]
        torch.testing.assert_close(rows[part][N + 1], expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(rows[part][N], one[part][N], rtol=0, atol=1e-6)


def test_slerp_goes_from_row_to_row_whether_or_not_a_base_is_named(tmp_path: Path) -> None:
    merge = merge_of(tmp_path, method="slerp", t=0.0, tokenizer="union")
    rows, one = (rows_in(path) for path in (merge.run(), merge.folders.candidates[0]))
    for part in rows:
        torch.testing.assert_close(rows[part][: N + 2], one[part][: N + 2], rtol=0, atol=1e-6)


def test_a_candidates_tokenizer_has_its_ids_and_special_tokens(tmp_path: Path) -> None:
    merge = merge_of(tmp_path, method="average", tokenizer="task1")
    folder = merge.folders.candidates[1]
    for name in ("config.json", "generation_config.json"):
        (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), "eos_token_id": N}))
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}<|b|>")
    output = merge.run()
    tokenizer = tokenizer_in(output)
    assert tokenizer.get_vocab() == tokenizer_in(folder).get_vocab()
    assert tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False) == "x<|b|>"
    for name in ("config.json", "generation_config.json"):
        assert json.loads((output / name).read_text())["eos_token_id"] == N
    rows, one, two = (rows_in(path) for path in (output, *merge.folders.candidates))
    for part in rows:
        assert rows[part].shape[0] == two[part].shape[0] == 320
        torch.testing.assert_close(rows[part][N], (one[part][N + 1] + 2 * two[part][N]) / 3, rtol=0, atol=1e-6)
        torch.testing.assert_close(rows[part][N + 1], two[part][N + 1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", ["llama", "llama-tied"])
def test_rows_are_padded_to_a_multiple(tmp_path: Path, family: checkpoints.Family) -> None:
    merge = merge_of(tmp_path, family, adds=False, pad_to_multiple_of=128)
    output = merge.run()
    assert json.loads((output / "config.json").read_text())["vocab_size"] == 384
    rows, base = rows_in(output), rows_in(merge.folders.base)
    for part in rows:
        assert torch.equal(rows[part][:N], base[part])
        expected = base[part].mean(dim=0).expand(384 - N, -1)
        torch.testing.assert_close(rows[part][N:], expected, rtol=0, atol=1e-6)


def test_rows_that_the_base_alone_lacks_count_as_memory(tmp_path: Path) -> None:
    merge = merge_of(tmp_path, adds=False, method="task_arithmetic", tokenizer="task1")
    for index, path in enumerate(merge.folders.candidates):
        add_tokens(path, ADDED[1], seed=index)
    plan = merge.plan()
    assert plan.base.tensors["lm_head.weight"].rows is not None
    assert plan.candidates[0].checkpoint.tensors["lm_head.weight"].rows is None
    assert memory_terms(plan, plan.steps[-1], ())["host"]["adapter"] == RowMap.scratch_bytes


@pytest.mark.parametrize("from_file", [False, True])
def test_a_chat_template_is_that_of_a_candidate_or_a_file(tmp_path: Path, from_file: bool) -> None:
    template = "{% for m in messages %}[{{ m['content'] }}]{% endfor %}"
    merge = merge_of(tmp_path, adds=False, chat_template="chat.jinja" if from_file else "task0")
    where = tmp_path if from_file else merge.folders.candidates[0]
    (where / ("chat.jinja" if from_file else "chat_template.jinja")).write_text(template)
    (tmp_path / "task0.jsonl").write_text(
        "".join(f'{{"messages": [{{"role": "user", "content": "{text}"}}]}}\n' for text in ("one", "two"))
    )
    text = merge.manifest.read_text().replace('"task0.jsonl"\nfield = "input_ids"', '"task0.jsonl"\nfield = "messages"')
    merge.manifest.write_text(text)
    plan = merge.plan()
    tokenizer = tokenizer_in(merge.folders.base)
    rows: Any = plan.candidates[0].calibration
    texts = {tokenizer.decode(ids) for index in range(len(rows.batches)) for ids in rows.token_ids(index)}
    assert texts == {"[one]", "[two]"}
    assert not any("template" in line for line in plan.warnings)
    found = tokenizer_in(merge.run())
    assert found.chat_template == template
    assert found.get_vocab() == tokenizer.get_vocab()


def test_rows_of_ids_are_those_of_each_candidates_tokenizer(tmp_path: Path) -> None:
    merge = merge_of(tmp_path, tokenizer="union")
    for name, ids in (("task0", [5, N + 1]), ("task1", [6, N, N + 1])):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"input_ids": ids}))
    found: list[Any] = [candidate.calibration for candidate in merge.plan().candidates]
    assert [rows.token_ids(0)[0].tolist() for rows in found] == [[5, N + 1], [6, N + 1, N + 2]]
    (tmp_path / "task1.jsonl").write_text(json.dumps({"input_ids": [6, N + 2]}))
    with pytest.raises(InputError, match=rf'"task1": calibration: .*task1.jsonl.*token id {N + 2} is no token'):
        merge.plan()


def test_an_evaluation_reads_all_models_in_the_results_vocabulary(tmp_path: Path) -> None:
    merge = merge_of(tmp_path, method="average", tokenizer="union")
    (tmp_path / "held.txt").write_text(f"The {SHARED} river <|b|> bends.\nNobody <|a|> told.\n")
    text = merge.manifest.read_text()
    table = '[candidates.evaluation]\npath = "held.txt"\n'
    merge.manifest.write_text(text.replace("[candidates.calibration]", f"{table}[candidates.calibration]"))
    merge.run()
    found = regstream.evaluate(merge.plan())
    scores = {row.model: row.scores for row in found.rows}
    assert scores.keys() >= {"base", "task0", "task1", "average"}
    assert all(0 < value < 20 for row in scores.values() for value in row.values())
    model: Any = AutoModelForCausalLM.from_pretrained(merge.output, dtype=torch.float32)
    tokenizer, losses = tokenizer_in(merge.output), list[tuple[float, int]]()
    for line in (tmp_path / "held.txt").read_text().splitlines():
        ids = torch.tensor([tokenizer(line)["input_ids"]])
        count = ids.shape[1] - 1
        losses.append((float(model(ids, labels=ids).loss.detach()) * count, count))
    expected = sum(total for total, _ in losses) / sum(count for _, count in losses)
    assert scores["average"]["task0"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("method", ["average", "regmean++"])
def test_a_run_resumes_after_the_stem_and_refuses_another_tokenizer(tmp_path: Path, method: str) -> None:
    merge = merge_of(tmp_path, method=method, tokenizer="union")
    expected = {name: tensor.clone() for name, tensor in read_result(merge.run()).items()}
    (tmp_path / "merged").rename(tmp_path / "finished")

    def stop(event: object) -> None:
        if isinstance(event, StepCommitted):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge.run(listener=stop)
    file = merge.folders.candidates[1] / "tokenizer.json"
    before = file.read_text()
    file.write_text(before.replace("<|b|>", "<|c|>"))
    with pytest.raises(ResumeError, match=r"tokenizers task1 tokenizer\.json"):
        merge.run()
    file.write_text(before)
    resumed = read_result(merge.run())
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)
    assert (tmp_path / "finished" / "tokenizer.json").read_bytes() == (merge.output / "tokenizer.json").read_bytes()


def test_a_finished_result_is_of_its_chat_template(tmp_path: Path) -> None:
    merge = merge_of(tmp_path, adds=False, method="average", chat_template="chat.jinja")
    (tmp_path / "chat.jinja").write_text("one")
    merge.run()
    assert regstream.is_finished(merge.read())
    (tmp_path / "chat.jinja").write_text("two")
    assert not regstream.is_finished(merge.read())
    with pytest.raises(ResumeError, match=r"tokenizers chat template chat\.jinja"):
        merge.run()


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_an_encoder_with_its_decoder_shares_the_rows_of_a_union(tmp_path: Path, name: str) -> None:
    [model] = [model for model in ENCODER_DECODERS if model.name == name]
    merge = make_tiny_merge(tmp_path, replace(model, keys={**model.keys, "vocab_size": N}))
    for index, folder in enumerate((merge.folders.base, *merge.folders.candidates)):
        checkpoints.make_tokenizer().save_pretrained(folder)
        if index:
            add_tokens(folder, ADDED[index - 1], seed=index, auto=AutoModelForSeq2SeqLM)
    text = merge.manifest.read_text().replace('"merged"\n', '"merged"\ntokenizer = "union"\npad_to_multiple_of = 8\n')
    merge.manifest.write_text(text)
    output = merge.run()
    assert regstream.verify(output).problems == ()
    rows, one, two = (rows_in(path, AutoModelForSeq2SeqLM) for path in (output, *merge.folders.candidates))
    for part in rows:
        assert rows[part].shape[0] == 296
        torch.testing.assert_close(rows[part][N], one[part][N], rtol=0, atol=1e-6)
        torch.testing.assert_close(rows[part][N + 1], (one[part][N + 1] + two[part][N]) / 2, rtol=0, atol=1e-6)
    found: Any = AutoModelForSeq2SeqLM.from_pretrained(output)
    assert found.generate(torch.tensor([[5, N, N + 2]]), max_new_tokens=3, do_sample=False).shape[0] == 1


def test_heads_of_their_own_have_rows_of_their_own(tmp_path: Path) -> None:
    merge = merge_of(tmp_path, "llama-tied", method="average", tokenizer="union")
    text = merge.manifest.read_text().replace('"merged"\n', '"merged"\nothers.tied_head = "untie"\n')
    merge.manifest.write_text(text)
    rows, one = rows_in(merge.run()), rows_in(merge.folders.candidates[0])
    for part in rows:
        torch.testing.assert_close(rows[part][N], one[part][N], rtol=0, atol=1e-6)


@pytest.mark.parametrize("embeddings", [False, True])
def test_an_adapter_on_the_base_is_read_in_the_results_vocabulary(tmp_path: Path, embeddings: bool) -> None:
    merge = merge_of(tmp_path, method="regmean", tokenizer="union")
    config: dict[str, Any] = {"modules_to_save": ["embed_tokens"]} if embeddings else {}
    make_adapter(merge.folders.base, tmp_path / "adapter", target_modules=LINEARS["llama"], **config)
    text = merge.manifest.read_text().replace('model = "candidate-0"', 'adapter = "adapter"')
    merge.manifest.write_text(text)
    if embeddings:
        with pytest.raises(InputError, match=r'"task0": its adapter changes model\.embed_tokens\.weight, whose rows'):
            merge.plan()
        return
    rows, two = rows_in(merge.run()), rows_in(merge.folders.candidates[1])
    for part in rows:
        assert torch.equal(rows[part][N:], two[part][N : N + 2])


def other_vocabulary(merge: Merge) -> None:
    file = merge.folders.candidates[0] / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    merges = {"".join(pair) for pair in content["model"]["merges"]}
    renamed = {token: f"{token}~" if len(token) == 1 else token for token in vocabulary if token not in merges}
    content["model"]["vocab"] = {renamed.get(token, token): index for token, index in vocabulary.items()}
    content["model"]["merges"] = []
    file.write_text(json.dumps(content))


def without_template(merge: Merge) -> None:
    (merge.folders.candidates[0] / "chat_template.jinja").unlink()


def without_tokenizer(merge: Merge) -> None:
    for file in merge.folders.candidates[0].glob("tokenizer*"):
        file.unlink()


@pytest.mark.parametrize(
    ("keys", "spoil", "message"),
    [
        ({"tokenizer": "union"}, other_vocabulary, r'"task0": tokenizer = "union" joins .* of its 28\d tokens'),
        (
            {"chat_template": "task0"},
            without_template,
            '"task0" has no chat template',
        ),
        ({"tokenizer": "task0"}, without_tokenizer, 'has no tokenizer for tokenizer = "task0"'),
    ],
)
def test_what_cannot_be_joined_is_refused(
    tmp_path: Path, keys: dict[str, Any], spoil: Callable[[Merge], None], message: str
) -> None:
    merge = merge_of(tmp_path, adds=False, **keys)
    spoil(merge)
    with pytest.raises(InputError, match=message):
        merge.plan()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('tokenizer = "unoin"', 'tokenizer: expected "base", "union" or a candidate\'s name.*did you mean "union"'),
        ('chat_template = "taks0"', 'chat_template: expected "base", a candidate\'s name or a .jinja file.*"task0"'),
        ('chat_template = "no.jinja"', "chat_template: expected a .jinja file.*there is no"),
        (
            'tokenizer = "union"\nothers.vocabulary = "base"',
            '"base" drops the rows that tokenizer = "union"',
        ),
        ("pad_to_multiple_of = 0", "pad_to_multiple_of: expected a whole number from 1 to 65536"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, keys: str, message: str) -> None:
    merge = merge_of(tmp_path, adds=False)
    merge.manifest.write_text(merge.manifest.read_text().replace('output = "merged"', f'output = "merged"\n{keys}'))
    with pytest.raises(ManifestError, match=message):
        merge.read()


def test_a_model_without_tokens_has_no_vocabulary(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, "clip", layers=1, candidates=1, merge={"pad_to_multiple_of": 8})
    with pytest.raises(InputError, match="pad_to_multiple_of: CLIPVisionModel has no vocabulary"):
        merge.plan()


def test_candidates_of_other_sizes_are_named_with_the_choice(tmp_path: Path) -> None:
    merge = merge_of(tmp_path, method="average")
    with pytest.raises(InputError, match=r'290 rows of vocabulary, the base 288; \[merge\] tokenizer = "union" adds'):
        merge.plan()
    padded = merge.manifest.read_text().replace('output = "merged"', 'output = "merged"\npad_to_multiple_of = 64')
    merge.manifest.write_text(padded)
    with pytest.raises(InputError, match=r'290 rows of vocabulary, the base 288; .* vocabulary = "base" keeps'):
        merge.plan()
    merge.manifest.write_text(padded.replace('"merged"\n', '"merged"\nothers.vocabulary = "base"\n'))
    assert any("rows 288 to 289 of vocabulary are left out" in line for line in merge.plan().warnings)
    assert rows_in(merge.run())["head"].shape[0] == 320


@pytest.mark.parametrize("keys", [{}, {"tokenizer": "base", "chat_template": "base"}])
def test_tokens_and_templates_that_the_result_lacks_are_named(tmp_path: Path, keys: dict[str, Any]) -> None:
    merge = merge_of(tmp_path, method="average", **keys)
    text = merge.manifest.read_text().replace('"merged"\n', '"merged"\nothers.vocabulary = "base"\n')
    merge.manifest.write_text(text)
    (merge.folders.candidates[0] / "chat_template.jinja").write_text("{{ messages }}")
    lines = [line for line in merge.plan().warnings if "tokenizer" in line or "template" in line]
    if keys:
        assert lines == []
        return
    [template] = [line for line in lines if "chat template differs" in line]
    assert "[merge] chat_template with the name of a candidate" in template
    assert sum('[merge] tokenizer = "union" adds them' in line for line in lines) == 2

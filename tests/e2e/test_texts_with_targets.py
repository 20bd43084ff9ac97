"""A FLAN-T5 merged from texts: its config unties a head that its class ties, and its rows go through a tokenizer."""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, T5Config, T5ForConditionalGeneration

import checkpoints
from altered_checkpoints import edited
from regstream import api
from regstream.errors import InputError

#: Of several lengths, some of which are alike.
ANSWERS = ("fox", "dog", "a long")
ROWS = [{"question": text, "answer": answer} for text in checkpoints.SENTENCES[:4] for answer in ANSWERS]
CONFIG: dict[str, Any] = {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 2, "pad_token_id": 0}
CONFIG |= {"feed_forward_proj": "gated-gelu", "decoder_start_token_id": 0, "vocab_size": checkpoints.VOCABULARY}
CONFIG |= {"tie_word_embeddings": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with the config of a published FLAN-T5, and candidates as transformers saves them today."""
    folder = tmp_path_factory.mktemp("texts")
    model = T5ForConditionalGeneration(T5Config(**CONFIG))
    model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.shared.weight))
    generator = torch.Generator().manual_seed(0)
    checkpoints.randomise(model, generator)
    for name in ("base", "first", "second"):
        model.save_pretrained(folder / name)
        checkpoints.make_tokenizer().save_pretrained(folder / name)
        checkpoints.perturb(model, 0.1, generator)
    config = json.loads((folder / "base" / "config.json").read_text())
    del config["scale_decoder_outputs"]
    (folder / "base" / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    return folder


def tables(folder: Path, output: str, **settings: Any) -> dict[str, Any]:
    rows = {"path": str(folder / "rows.jsonl"), "field": "question", "target": "answer", **settings}
    candidates = [
        {"name": name, "model": str(folder / name), "calibration": rows, "evaluation": rows}
        for name in ("first", "second")
    ]
    merge = {"method": "regmean++", "base": str(folder / "base"), "output": str(folder / output)}
    others = {"tied_head": "untie"}
    resources = {"device": "cpu", "compute_dtype": "float32", "diagnostics": False}
    return {"merge": merge | {"others": others}, "candidates": candidates, "resources": resources}


@pytest.mark.slow
def test_it_gives_what_batches_of_one_give_and_transformers_loads_it(folder: Path) -> None:
    results, losses = [], []
    for output, settings in (("merged", {}), ("one-by-one", {"batch_rows": 1})):
        plan = api.plan(api.make_manifest(tables(folder, output, **settings)))
        assert len(plan.calibrated[0].rows.batches) == (len(ROWS) if settings else 6)
        results.append(T5ForConditionalGeneration.from_pretrained(api.merge(plan)).state_dict())
        losses.append({row.model: fmean(row.scores.values()) for row in api.evaluate(plan).rows})
    for name, tensor in results[0].items():
        torch.testing.assert_close(tensor, results[1][name], rtol=1e-6, atol=1e-6)
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder / "merged")
    assert not model.config.scale_decoder_outputs
    assert not torch.equal(model.lm_head.weight, model.shared.weight)
    tokenizer = AutoTokenizer.from_pretrained(folder / "merged")
    total, count = 0.0, 0
    for row in ROWS:
        inputs = tokenizer(row["question"], return_tensors="pt")
        labels = tokenizer(text_target=row["answer"], return_tensors="pt")["input_ids"]
        logits = model(input_ids=inputs["input_ids"], labels=labels).logits[0].detach()
        total, count = total + float(cross_entropy(logits, labels[0], reduction="sum")), count + labels.numel()
        assert model.generate(input_ids=inputs["input_ids"], max_new_tokens=4).shape[1] > 1
    assert losses[0]["regmean++"] == pytest.approx(total / count, rel=1e-5)


def test_a_head_of_its_own_is_refused_with_the_way_out_and_so_is_none(folder: Path) -> None:
    manifest = tables(folder, "refused")
    del manifest["merge"]["others"]
    with pytest.raises(InputError, match=r'lm_head.weight differs from shared.weight.*tied_head = "untie"'):
        api.plan(api.make_manifest(manifest))
    manifest["merge"]["base"] = str(edited(folder / "base", folder / "headless", lambda t: t.pop("lm_head.weight")))
    with pytest.raises(InputError, match=r"config.json says that lm_head.weight is not tied, and no file holds it"):
        api.plan(api.make_manifest(manifest))

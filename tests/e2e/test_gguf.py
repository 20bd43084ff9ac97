"""A merge becomes a GGUF file by llama.cpp's own converter, with its tensors and tokens, and llama.cpp computes with it
what transformers does with the merge."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import checkpoints
import regstream
from smollm.convert import build_tokenizer, packaged_gguf, parameter_name, read_fields, undo_rope_interleaving

pytestmark = pytest.mark.slow

#: Where `tools/setup` puts llama.cpp, with a `gguf` of its own beside it.
LLAMA_CPP = Path(sys.prefix) / "share" / "llama.cpp"
PROMPT = "def area(width, height):"
_HEADS, _KEY_HEADS = 4, 2
_NEXT_TOKEN = """
import json, sys, xllamacpp
settings = xllamacpp.CommonParams()
settings.model.path, settings.n_ctx, settings.warmup = sys.argv[1], 64, False
asked = {"prompt": sys.argv[2], "n_predict": 1, "temperature": 0, "n_probs": 8}
told = xllamacpp.Server(settings).handle_completions(asked)
top = told["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
print(json.dumps({token["id"]: token["logprob"] for token in top}))
"""


@pytest.fixture(autouse=True)
def device() -> None:
    """Not on several: these tests are about files."""


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A merge and what became of it."""

    merged: Path
    file: Path
    content: GGUFReader
    rounding: float  # relative, of the file's dtype beside the merge's


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """SmolLM2's: the converter refuses a tokenizer whose first split of a text is of no published model."""
    return build_tokenizer(read_fields(GGUFReader(packaged_gguf())))


def run_python(*arguments: str | Path) -> str:
    """What a script prints, run with llama.cpp's packages."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], env=os.environ | {"PYTHONPATH": str(LLAMA_CPP)},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_inputs(folder: Path, tokenizer: Any, dtype: torch.dtype, *, tied: bool) -> None:
    """Write a base, two candidates near it, and a row of text for each."""
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=_HEADS, num_key_value_heads=_KEY_HEADS, tie_word_embeddings=tied,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model, generator = LlamaForCausalLM(config), torch.Generator().manual_seed(0)
    nn.Module.to(model, dtype)
    checkpoints.randomise(model, generator)
    for name in ("base", "math", "code"):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        checkpoints.write_texts(folder / f"{name}.jsonl", checkpoints.SENTENCES)
        checkpoints.perturb(model, 0.1, generator)


@pytest.fixture(
    scope="module", params=[("bfloat16", True, "auto"), ("float32", False, "f16")], ids=["tied-bf16", "untied-f16"]
)
def converted(
    tokenizer: PreTrainedTokenizerFast, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Converted:
    if not (LLAMA_CPP / "convert_hf_to_gguf.py").exists():
        pytest.skip("no llama.cpp; tools/setup installs it")
    dtype, tied, outtype = request.param
    folder = tmp_path_factory.mktemp("gguf")
    write_inputs(folder, tokenizer, getattr(torch, dtype), tied=tied)
    text = '[merge]\nmethod = "regmean++"\nbase = "base"\noutput = "merged"\n'
    for name in ("math", "code"):
        text += f'[[candidates]]\nname = "{name}"\nmodel = "{name}"\ncalibration.path = "{name}.jsonl"\n'
    (folder / "merge.toml").write_text(text)
    merged = regstream.merge(regstream.plan(regstream.load_manifest(folder / "merge.toml")))
    file = folder / "merged.gguf"
    run_python(LLAMA_CPP / "convert_hf_to_gguf.py", merged, "--outfile", file, "--outtype", outtype)
    rounding = 0 if outtype == "auto" else 2**-11
    return Converted(merged=merged, file=file, content=GGUFReader(file), rounding=rounding)


def read_tensors(content: GGUFReader) -> dict[str, Tensor]:
    """The tensors of a GGUF file, float32, by transformers' names and in its order of rotary pairs."""
    tensors = {}
    for tensor in content.tensors:
        name = "lm_head.weight" if tensor.name == "output.weight" else parameter_name(tensor.name)
        weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        if "q_proj" in name or "k_proj" in name:
            weight = undo_rope_interleaving(weight, _HEADS if "q_proj" in name else _KEY_HEADS)
        tensors[name] = weight
    return tensors


def test_the_tensors_are_those_of_the_merge(converted: Converted) -> None:
    found = read_tensors(converted.content)
    expected = {n: t.float() for file in converted.merged.glob("*.safetensors") for n, t in load_file(file).items()}
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        # The least number of float16 is 2⁻²⁴.
        limit = converted.rounding * weight.abs() + (2**-25 if converted.rounding else 0)
        assert torch.all((found[name] - weight).abs() <= limit), name


def test_the_tokens_and_the_template_are_those_of_the_merge(converted: Converted) -> None:
    fields, tokenizer = read_fields(converted.content), AutoTokenizer.from_pretrained(converted.merged)
    assert (fields["general.architecture"], fields["llama.block_count"]) == ("llama", 2)
    assert fields["tokenizer.ggml.pre"] == "smollm"
    assert fields["tokenizer.ggml.tokens"] == tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    assert fields["tokenizer.ggml.eos_token_id"] == tokenizer.eos_token_id
    assert fields["tokenizer.chat_template"] == tokenizer.chat_template


@torch.no_grad()
def test_llama_cpp_computes_what_transformers_does(converted: Converted) -> None:
    found = json.loads(run_python("-c", _NEXT_TOKEN, converted.file, PROMPT))
    tokenizer: Any = AutoTokenizer.from_pretrained(converted.merged)
    model = AutoModelForCausalLM.from_pretrained(converted.merged, dtype=torch.float32)
    logits = model(**tokenizer(PROMPT, return_tensors="pt")).logits[0, -1]
    expected = logits.log_softmax(-1)
    assert len(found) == 8
    assert int(next(iter(found))) == int(expected.argmax())
    for token, value in found.items():
        assert value == pytest.approx(float(expected[int(token)]), abs=0.02), token

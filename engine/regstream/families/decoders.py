"""Decoder-only language models whose blocks are laid out as Llama's."""

from regstream.families.description import Family, InputGroup

_GROUPS = (
    InputGroup(name="attention input", linears=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
    InputGroup(name="attention output", linears=("self_attn.o_proj",)),
    InputGroup(name="mlp input", linears=("mlp.gate_proj", "mlp.up_proj")),
    InputGroup(name="mlp output", linears=("mlp.down_proj",)),
)


def _decoder(name: str, *model_types: str) -> Family:
    return Family(
        name=name,
        model_types=model_types,
        model_class="AutoModelForCausalLM",
        rows="input_ids",
        blocks="model.layers",
        body="model",
        body_arguments={"use_cache": False},
        groups=_GROUPS,
        parts={"embeddings": ("model.embed_tokens",), "final_norm": ("model.norm",), "head": ("lm_head",)},
        # MergeBench: embeddings and head of the base, final norm the mean of the candidates.
        defaults={"embeddings": "base", "final_norm": "average", "head": "base"},
        prefixes=("",),
    )


LLAMA = _decoder("llama", "llama")
GEMMA2 = _decoder("gemma2", "gemma2")

"""Language models whose blocks, or some of them, convolve or recur instead of attending."""

from typing import Any

from tiny_models.decoders import LAYERS
from tiny_models.model import (
    BLOCKS,
    DECODER,
    ENDS,
    HIDDEN,
    INTERMEDIATE,
    POSITIONS,
    VOCABULARY,
    WIDE_HEADS,
    WINDOW,
    TinyModel,
    tiny,
)

#: Qwen's linear attention.
DELTA_NET = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
#: Why Mamba's projection of time steps is averaged.
DT_PROJ = "its weight is multiplied from the left, without a call of the linear"
_STATE = {"vocab_size": VOCABULARY, "hidden_size": HIDDEN, "num_hidden_layers": BLOCKS, **ENDS}
_MAMBA: dict[str, Any] = _STATE | {"state_size": 8, "pad_token_id": 0}

RECURRENT: tuple[TinyModel, ...] = (
    tiny("qwen3_5_text", "Qwen3_5ForCausalLM", LAYERS, DECODER | DELTA_NET, **WIDE_HEADS),
    tiny("lfm2", "Lfm2ForCausalLM", LAYERS, DECODER, full_attn_idxs=[1, 3], layer_types=None, block_multiple_of=32),
    tiny(
        "bamba",
        "BambaForCausalLM",
        LAYERS,
        DECODER,
        mamba_n_heads=4,
        mamba_d_head=16,
        mamba_d_state=8,
        attn_layer_indices=[1, 3],
    ),
    tiny(
        "mamba",
        "MambaForCausalLM",
        "backbone.layers",
        _MAMBA,
        averaged={"*.mixer.dt_proj": DT_PROJ},
    ),
    tiny("mamba2", "Mamba2ForCausalLM", "backbone.layers", _MAMBA, num_heads=8, head_dim=8, expand=2, n_groups=1),
    tiny(
        "falcon_h1",
        "FalconH1ForCausalLM",
        LAYERS,
        DECODER,
        head_dim=8,
        mamba_d_ssm=64,
        mamba_n_heads=4,
        mamba_d_head=16,
        mamba_d_state=8,
        mamba_n_groups=1,
    ),
    tiny(
        "recurrent_gemma",
        "RecurrentGemmaForCausalLM",
        LAYERS,
        DECODER,
        lru_width=HIDDEN,
        attention_window_size=WINDOW,
        block_types=["recurrent", "recurrent", "attention"],
        averaged={"*.rg_lru.*_gate_weight": "several matrices in one parameter, each of some features of every token"},
    ),
    tiny(
        "rwkv",
        "RwkvForCausalLM",
        "rwkv.blocks",
        _STATE,
        context_length=POSITIONS,
        attention_hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
    ),
    tiny(
        "zamba2",
        "Zamba2ForCausalLM",
        None,  # model.layers, but blocks 1 and 3 hold the same transformer, which also reads the embeddings
        DECODER,
        kind="repeated block",
        mamba_d_state=8,
        mamba_headdim=8,
        mamba_ngroups=1,
        n_mamba_heads=8,
        hybrid_layer_ids=[1, 3],
        num_mem_blocks=1,
        layers_block_type=["mamba", "hybrid"] * (BLOCKS // 2),
        use_mem_rope=False,
    ),
)

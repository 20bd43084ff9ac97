"""[architecture] tables for the checkpoints of architectures that are not known."""

import checkpoints

TABLES: dict[checkpoints.Family, str] = {
    "olmo2": """
[architecture]
blocks     = "model.layers"
embeddings = ["model.embed_tokens"]
final_norm = ["model.norm"]
head       = ["lm_head"]
inputs = [
    ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    ["self_attn.o_proj"],
    ["mlp.gate_proj", "mlp.up_proj"],
    ["mlp.down_proj"],
]
""",
    "gpt_neox": """
[architecture]
model_class = "GPTNeoXForCausalLM"
blocks      = "gpt_neox.layers"
embeddings  = ["gpt_neox.embed_in"]
final_norm  = ["gpt_neox.final_layer_norm"]
head        = ["lm_head"]
renames     = [['^embed_out\\.', "lm_head."]]
inputs = [["attention.query_key_value"], ["attention.dense"], ["mlp.dense_h_to_4h"], ["mlp.dense_4h_to_h"]]
""",
    "opt": """
[architecture]
blocks     = "model.decoder.layers"
embeddings = ["model.decoder.embed_tokens", "model.decoder.embed_positions"]
final_norm = ["model.decoder.final_layer_norm"]
head       = ["lm_head"]
inputs = [["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], ["self_attn.out_proj"], ["fc1"], ["fc2"]]
""",
    "megatron-bert": """
[architecture]
model_class = "AutoModel"
blocks      = "encoder.layer"
body        = ""
embeddings  = ["embeddings"]
final_norm  = ["encoder.ln"]
head        = ["pooler"]
inputs = [
    ["attention.self.query", "attention.self.key", "attention.self.value"],
    ["attention.output.dense"],
    ["intermediate.dense"],
    ["output.dense"],
]
""",
    "siglip": """
[architecture]
model_class  = "SiglipVisionModel"
rows         = "pixel_values"
blocks       = "encoder.layers"
embeddings   = ["embeddings"]
final_norm   = ["post_layernorm"]
pooled       = "post_layernorm"
class_tokens = 0
renames      = [['^vision_model\\.', ""]]
inputs = [
    ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    ["self_attn.out_proj"],
    ["mlp.fc1"],
    ["mlp.fc2"],
]
""",
}

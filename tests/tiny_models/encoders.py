"""Text encoders."""

from typing import Any

from tiny_models.model import ENCODER, HIDDEN, WINDOW, TinyModel, tiny

LAYER = "encoder.layer"
#: Queries and keys of tokens meet those of relative positions.
_DISENTANGLED: dict[str, Any] = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
    "max_relative_positions": -1,
}
_OF_POSITIONS = "reads relative positions, not tokens"

ENCODERS: tuple[TinyModel, ...] = (
    tiny("bert", "BertModel", LAYER, ENCODER),
    tiny("roberta", "RobertaModel", LAYER, ENCODER),
    tiny("xlm-roberta", "XLMRobertaModel", LAYER, ENCODER),
    tiny(
        "deberta-v2",
        "DebertaV2Model",
        LAYER,
        ENCODER | _DISENTANGLED,
        position_buckets=32,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        averaged={"*.attention.self.[qk]*_proj": "runs twice in a pass: on tokens and on relative positions"},
    ),
    tiny(
        "deberta",
        "DebertaModel",
        LAYER,
        ENCODER | _DISENTANGLED,
        averaged={"*.attention.self.pos_proj": _OF_POSITIONS, "*.attention.self.pos_q_proj": _OF_POSITIONS},
    ),
    tiny("electra-small", "ElectraModel", LAYER, ENCODER, model_type="electra", embedding_size=16),
    tiny("albert", "AlbertModel", None, ENCODER, kind="repeated block", embedding_size=16),
    tiny("mpnet", "MPNetModel", LAYER, ENCODER),
    tiny("ernie", "ErnieModel", LAYER, ENCODER, use_task_id=False),
    tiny("nomic_bert", "NomicBertModel", "layers", ENCODER),
    tiny("roformer", "RoFormerModel", LAYER, ENCODER, embedding_size=HIDDEN),
    tiny("megatron-bert", "MegatronBertModel", LAYER, ENCODER),
    tiny("jina_embeddings_v3", "JinaEmbeddingsV3Model", "layers", ENCODER),
    tiny("rembert", "RemBertModel", LAYER, ENCODER, input_embedding_size=16, output_embedding_size=16),
    tiny("xlm-roberta-xl", "XLMRobertaXLModel", LAYER, ENCODER),
    tiny(
        "longformer",
        "LongformerModel",
        LAYER,
        ENCODER,
        attention_window=WINDOW,
        averaged={"*.attention.self.*_global": "never runs: no token of a row attends globally"},
    ),
    tiny(
        "mobilebert",
        "MobileBertModel",
        LAYER,
        ENCODER,
        embedding_size=HIDDEN,
        intra_bottleneck_size=16,
        true_hidden_size=16,
    ),
)

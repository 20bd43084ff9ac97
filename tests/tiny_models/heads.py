"""Models with a task's head, and models without the head that is usual for them."""

from tiny_models.decoders import LAYERS
from tiny_models.encoders import LAYER
from tiny_models.model import DECODER, ENCODER, GPT, IMAGE, WIDE_HEADS, WINDOW, TinyModel, tiny

HEADED: tuple[TinyModel, ...] = (
    tiny("llama-seqcls", "LlamaForSequenceClassification", LAYERS, DECODER, model_type="llama", num_labels=3),
    tiny("llama-reward", "LlamaForSequenceClassification", LAYERS, DECODER, model_type="llama", num_labels=1),
    tiny("qwen2-seqcls", "Qwen2ForSequenceClassification", LAYERS, DECODER, model_type="qwen2", num_labels=3),
    tiny(
        "qwen3-seqcls",
        "Qwen3ForSequenceClassification",
        LAYERS,
        DECODER | WIDE_HEADS,
        model_type="qwen3",
        num_labels=2,
    ),
    tiny("mistral-tokcls", "MistralForTokenClassification", LAYERS, DECODER, model_type="mistral", num_labels=5),
    tiny("llama-base-only", "LlamaModel", "layers", DECODER, model_type="llama"),
    tiny("qwen2-base-only", "Qwen2Model", "layers", DECODER, model_type="qwen2"),
    tiny(
        "gpt2-seqcls",
        "GPT2ForSequenceClassification",
        "transformer.h",
        GPT,
        model_type="gpt2",
        num_labels=3,
        pad_token_id=0,
    ),
    tiny("bert-seqcls", "BertForSequenceClassification", f"bert.{LAYER}", ENCODER, model_type="bert", num_labels=3),
    tiny("bert-tokcls", "BertForTokenClassification", f"bert.{LAYER}", ENCODER, model_type="bert", num_labels=5),
    tiny("bert-qa", "BertForQuestionAnswering", f"bert.{LAYER}", ENCODER, model_type="bert"),
    tiny("bert-mlm", "BertForMaskedLM", f"bert.{LAYER}", ENCODER, model_type="bert"),
    tiny(
        "roberta-seqcls",
        "RobertaForSequenceClassification",
        f"roberta.{LAYER}",
        ENCODER,
        model_type="roberta",
        num_labels=3,
    ),
    tiny(
        "modernbert-seqcls",
        "ModernBertForSequenceClassification",
        LAYERS,
        ENCODER,
        model_type="modernbert",
        local_attention=2 * WINDOW,
        num_labels=3,
    ),
    tiny(
        "vit-imgcls",
        "ViTForImageClassification",
        "vit.layers",
        IMAGE,
        model_type="vit",
        num_labels=5,
        reads="pixel_values",
    ),
)

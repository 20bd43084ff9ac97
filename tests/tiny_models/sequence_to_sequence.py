"""Encoders with decoders, and speech encoders."""

from dataclasses import replace
from typing import Any

import checkpoints
from tiny_models.model import (
    ALTERNATING,
    BLOCKS,
    DECODER,
    ENDS,
    HEADS,
    HIDDEN,
    IMAGE,
    INTERMEDIATE,
    POSITIONS,
    VOCABULARY,
    WIDE_HEADS,
    TinyModel,
    tiny,
)

_T5 = {
    "vocab_size": VOCABULARY,
    "d_model": HIDDEN,
    "d_kv": 8,
    "d_ff": INTERMEDIATE,
    "num_layers": BLOCKS,
    "num_decoder_layers": BLOCKS,
    "num_heads": HEADS,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
_BART = {
    "vocab_size": VOCABULARY,
    "d_model": HIDDEN,
    "encoder_layers": BLOCKS,
    "decoder_layers": BLOCKS,
    "encoder_attention_heads": HEADS,
    "decoder_attention_heads": HEADS,
    "encoder_ffn_dim": INTERMEDIATE,
    "decoder_ffn_dim": INTERMEDIATE,
    "max_position_embeddings": POSITIONS,
    "pad_token_id": 0,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": 2,
    **ENDS,
}
_LED = {
    "attention_window": 8,
    "max_encoder_position_embeddings": POSITIONS,
    "max_decoder_position_embeddings": POSITIONS,
}
#: Tokens that stand for padding are masked wherever they are: no row has one.
_T5_GEMMA_STACK = (DECODER | WIDE_HEADS | ALTERNATING | {"vocab_size": VOCABULARY + 1, "pad_token_id": VOCABULARY}) | {
    "query_pre_attn_scalar": 16
}
_T5_GEMMA: dict[str, Any] = {
    "encoder": _T5_GEMMA_STACK,
    "decoder": _T5_GEMMA_STACK | {"is_decoder": True},
    "vocab_size": VOCABULARY + 1,
    "is_encoder_decoder": True,
    "decoder_start_token_id": 1,
    "pad_token_id": VOCABULARY,
    **ENDS,
}
#: Where ReLU leaves an expert's units dead on its few tokens, what is left is rounding.
_SWITCH = {"num_experts": 4, "num_sparse_encoder_layers": 2, "num_sparse_decoder_layers": 2, "dense_act_fn": "gelu"}
_SPEECH_TO_TEXT = {
    "max_source_positions": 64,
    "max_target_positions": 64,
    "conv_channels": 16,
    "input_feat_per_channel": 64,
}
_TROCR: dict[str, Any] = {
    "encoder": {"model_type": "vit", **IMAGE},
    "decoder": {
        "model_type": "trocr",
        "vocab_size": VOCABULARY,
        "d_model": HIDDEN,
        "decoder_layers": BLOCKS,
        "decoder_attention_heads": HEADS,
        "decoder_ffn_dim": INTERMEDIATE,
        "max_position_embeddings": POSITIONS,
        "is_decoder": True,
        "add_cross_attention": True,
        "cross_attention_hidden_size": HIDDEN,
        "tie_word_embeddings": False,
        "pad_token_id": 0,
        "decoder_start_token_id": 2,
        **ENDS,
    },
    "decoder_start_token_id": 2,
    "pad_token_id": 0,
}
_MOONSHINE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "encoder_num_hidden_layers": BLOCKS,
    "decoder_num_hidden_layers": BLOCKS,
    "encoder_num_attention_heads": HEADS,
    "decoder_num_attention_heads": HEADS,
    "pad_token_id": 0,
    **ENDS,
}
_WHISPER: dict[str, Any] = {
    "num_mel_bins": 8,
    "max_source_positions": 32,
    "max_target_positions": 64,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
}
_SPEECH: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": HEADS,
    "vocab_size": VOCABULARY,
    "conv_dim": (16, 16),
    "conv_stride": (2, 2),
    "conv_kernel": (3, 3),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}


#: Of which no two in a row are of one length, and none of the length of the row's input.
TARGET_LENGTHS = (11, 21, 17, 7)


def _targets(num_rows: int, seed: int) -> list[list[int]]:
    return checkpoints.random_rows(VOCABULARY, (TARGET_LENGTHS * num_rows)[:num_rows], seed=seed)


def _with_decoder(name: str, model_class: str, keys: dict[str, Any], blocks: str, **options: Any) -> TinyModel:
    """`blocks` is where an encoder's and a decoder's lists of blocks are, with a place for which of both."""
    return TinyModel(
        name=name,
        model_type=name,
        model_class=model_class,
        keys=keys,
        blocks=blocks.format("encoder"),
        decoder=blocks.format("decoder"),
        kind="with decoder",
        targets=_targets,
        **options,
    )


def _speech(name: str, model_class: str, **options: Any) -> TinyModel:
    return tiny(name, model_class, "encoder.layers", _SPEECH, reads="input_values", **options)


ENCODER_DECODERS: tuple[TinyModel, ...] = (
    _with_decoder("t5", "T5ForConditionalGeneration", _T5, "{}.block"),
    _with_decoder("mt5", "MT5ForConditionalGeneration", _T5, "{}.block"),
    tiny(
        "t5-encoder",
        "T5EncoderModel",
        "encoder.block",
        _T5 | {"is_encoder_decoder": False},
        model_type="t5",
    ),
    _with_decoder("bart", "BartForConditionalGeneration", _BART, "model.{}.layers"),
    _with_decoder("mbart", "MBartForConditionalGeneration", _BART, "model.{}.layers"),
    _with_decoder("m2m_100", "M2M100ForConditionalGeneration", _BART, "model.{}.layers"),
    _with_decoder("pegasus", "PegasusForConditionalGeneration", _BART, "model.{}.layers"),
    _with_decoder("blenderbot", "BlenderbotForConditionalGeneration", _BART, "model.{}.layers"),
    _with_decoder("led", "LEDForConditionalGeneration", _BART | _LED, "led.{}.layers"),
    _with_decoder("longt5", "LongT5ForConditionalGeneration", _T5 | {"local_radius": 8}, "{}.block"),
    _with_decoder("umt5", "UMT5ForConditionalGeneration", _T5, "{}.block"),
    _with_decoder("t5gemma", "T5GemmaForConditionalGeneration", _T5_GEMMA, "model.{}.layers"),
    _with_decoder(
        "switch_transformers",
        "SwitchTransformersForConditionalGeneration",
        _T5 | _SWITCH,
        "{}.block",
        expert_modules="*.experts.*",
    ),
    _with_decoder("marian", "MarianMTModel", _BART | {"activation_function": "swish"}, "model.{}.layers"),
    _with_decoder(
        "whisper", "WhisperForConditionalGeneration", _BART | _WHISPER, "model.{}.layers", reads="input_features"
    ),
    replace(
        _with_decoder("trocr", "VisionEncoderDecoderModel", _TROCR, "encoder.layers", reads="pixel_values"),
        model_type="vision-encoder-decoder",
        decoder="decoder.model.decoder.layers",
    ),
    _with_decoder(
        "speech_to_text",
        "Speech2TextForConditionalGeneration",
        _BART | _SPEECH_TO_TEXT,
        "model.{}.layers",
        reads="input_features",
    ),
    _with_decoder(
        "moonshine", "MoonshineForConditionalGeneration", _MOONSHINE, "model.{}.layers", reads="input_values"
    ),
)
SPEECH_ENCODERS: tuple[TinyModel, ...] = (
    _speech("wav2vec2", "Wav2Vec2Model"),
    _speech("hubert", "HubertModel"),
    _speech(
        "wavlm",
        "WavLMModel",
        averaged={
            "*.attention.[kqv]_proj": "one function reads the weights of all three, without a call of the linears",
            "*.attention.out_proj": "a function reads its weight, without a call of the linear",
            "*.attention.gru_rel_pos_linear": "reads each head of a token, not each token",
        },
    ),
)

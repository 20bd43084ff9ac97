"""What becomes of the parameters outside the blocks unless the manifest says otherwise."""

from regstream.models.architecture.architecture import DefaultPolicy

#: MergeBench: embeddings and head of the base, final norm the mean of the candidates.
LANGUAGE_MODEL_POLICY: DefaultPolicy = {
    "embeddings": "base", "final_norm": "average", "head": "base", "towers": "average",
}  # fmt: skip
#: RegMean: every parameter that is not a linear's weight is averaged.
ENCODER_POLICY: DefaultPolicy = {
    "embeddings": "average", "final_norm": "average", "head": "average", "towers": "average",
}  # fmt: skip
#: As the official code and FusionBench do: patch, class and position embeddings and the first norm are averaged.
_CLIP_VISION_POLICY: DefaultPolicy = {**ENCODER_POLICY, "final_norm": "base", "head": "base"}
_CLIP_TEXT_POLICY: DefaultPolicy = dict.fromkeys(ENCODER_POLICY, "base")
_BY_MODEL_TYPE = {"clip_vision_model": _CLIP_VISION_POLICY, "clip_text_model": _CLIP_TEXT_POLICY}
#: The norm of the token that represents a row, which `evaluate` reads.
POOLED_NORMS = {
    "clip_vision_model": "post_layernorm", "clip_text_model": "final_layer_norm", "vit": "layernorm",
}  # fmt: skip
#: Modules that checkpoints of many classes lack: they were saved by a class without them.
OPTIONAL_MODULES = ("pooler",)


def default_policy(model_type: str, *, is_language_model: bool) -> DefaultPolicy:
    """CLIP's own policy, or that of language models or of encoders. `is_language_model`: it generates, or is the body
    of a model that does."""
    return _BY_MODEL_TYPE.get(model_type, LANGUAGE_MODEL_POLICY if is_language_model else ENCODER_POLICY)

"""All tiny models by name."""

from tiny_models.decoders import DECODERS
from tiny_models.encoders import ENCODERS
from tiny_models.experts import EXPERTS
from tiny_models.heads import HEADED
from tiny_models.images import IMAGE_ENCODERS
from tiny_models.model import TinyModel
from tiny_models.multimodal import MULTIMODAL
from tiny_models.recurrent import RECURRENT
from tiny_models.sequence_to_sequence import ENCODER_DECODERS, SPEECH_ENCODERS

TINY_MODELS: dict[str, TinyModel] = {
    model.name: model
    for models in (
        DECODERS,
        RECURRENT,
        EXPERTS,
        HEADED,
        ENCODERS,
        IMAGE_ENCODERS,
        MULTIMODAL,
        ENCODER_DECODERS,
        SPEECH_ENCODERS,
    )
    for model in models
}

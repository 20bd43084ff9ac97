"""The architectures regstream knows, each a description; nothing here imports torch."""

from regstream.models.families.clip import CLIP_VISION
from regstream.models.families.decoders import DECODERS, GPT2
from regstream.models.families.encoders import BERT, ROBERTA, VIT
from regstream.models.family import Family

FAMILIES: tuple[Family, ...] = (*DECODERS, GPT2, BERT, ROBERTA, VIT, CLIP_VISION)


def family_of(model_type: str, described: Family | None = None) -> Family | None:
    """The family that describes a config's `model_type`, `described` among them, or None where none does."""
    families = FAMILIES if described is None else (*FAMILIES, described)
    return next((family for family in families if model_type in family.model_types), None)

"""All known architectures."""

from regstream.models.families.clip import CLIP_VISION
from regstream.models.families.decoders import DECODERS, GPT2
from regstream.models.families.encoders import BERT, ROBERTA, VIT
from regstream.models.families.family import Family

FAMILIES: tuple[Family, ...] = (*DECODERS, GPT2, BERT, ROBERTA, VIT, CLIP_VISION)


def family_of(model_type: str, described: Family | None = None) -> Family | None:
    """Return the family of a config's `model_type`, or None; `described` is one that the manifest adds."""
    families = FAMILIES if described is None else (*FAMILIES, described)
    return next((family for family in families if model_type in family.model_types), None)

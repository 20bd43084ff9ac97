"""From a manifest's [architecture] table to a family."""

from dataclasses import replace
from functools import partial

from regstream.manifest.schema import Architecture
from regstream.models.family import ENCODER_FATES, LANGUAGE_MODEL_FATES, Family, InputGroup
from regstream.models.images import patches_and_class


def family_from(architecture: Architecture, model_type: str) -> Family:
    """The family that a table describes."""
    # A whole vision model starts from its images; any other body from embedded rows, past the stem's own modules.
    from_images = architecture.rows == "pixel_values" and not architecture.running_body
    family = Family(
        name=model_type,
        model_types=(model_type,),
        model_class=architecture.model_class,
        rows=architecture.rows,
        blocks=architecture.blocks,
        body=architecture.running_body,
        body_input="pixel_values" if from_images else "inputs_embeds",
        before_blocks=() if from_images else architecture.embeddings,
        groups=tuple(
            InputGroup(name=f"input of {linears[0]}", linears=linears, transposed=architecture.transposed)
            for linears in architecture.inputs
        ),
        parts=architecture.parts,
        defaults=ENCODER_FATES,
        pooled=architecture.pooled or "",
        activates_in_place=False,  # nobody told
        optional=architecture.optional,
        tokens_per_row=partial(patches_and_class, class_tokens=architecture.class_tokens),
        renames=architecture.renames,
    )
    return replace(family, defaults=LANGUAGE_MODEL_FATES) if family.continues_text else family

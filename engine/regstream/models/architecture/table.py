"""A `Family` built from the manifest's `[architecture]` table."""

from dataclasses import replace
from functools import partial

from regstream.manifest.architecture import Architecture
from regstream.models.config.image_sizes import num_image_tokens
from regstream.models.families.family import ENCODER_POLICY, LANGUAGE_MODEL_POLICY, Family, InputGroup


def family_from_table(architecture: Architecture, model_type: str) -> Family:
    """Build the family that a table describes."""
    # The body of a full vision model takes images; any other takes embeddings, and its forward reruns the stem.
    from_images = architecture.rows == "pixel_values" and not architecture.running_body
    family = Family(
        name=model_type,
        model_types=(model_type,),
        model_class=architecture.model_class,
        modality=architecture.rows,
        blocks=architecture.blocks,
        body=architecture.running_body,
        body_input="pixel_values" if from_images else "inputs_embeds",
        body_stem_modules=() if from_images else architecture.embeddings,
        groups=tuple(
            InputGroup(name=f"input of {linears[0]}", linears=linears, transposed=architecture.transposed)
            for linears in architecture.inputs
        ),
        parts=architecture.parts,
        defaults=ENCODER_POLICY,
        pooled_norm=architecture.pooled or "",
        activates_in_place=False,  # the table does not say
        optional=architecture.optional,
        tokens_per_row=partial(num_image_tokens, class_tokens=architecture.class_tokens),
        renames=architecture.renames,
    )
    return replace(family, defaults=LANGUAGE_MODEL_POLICY) if family.is_causal_lm else family

"""The `[architecture]` table: what it says of a model takes the place of what is derived from the model."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from regstream.manifest.value_types import Names, Rename, Table, Text


def _filled(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("expected at least one name, found an empty list")
    return values


def _filled_if_any(values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    return None if values is None else _filled(values)


class ArchitectureTable(Table):
    """What is not to be derived from the model. Module names are those of the transformers class."""

    model_class: Text | None = None
    """a class of transformers; builds the model from the base's config; default: the class that the config names"""
    rows: Literal["input_ids", "pixel_values"] | None = None
    """what the model reads: token ids or images; default: the class's main input"""
    blocks: Annotated[Text | None, Field(examples=["gpt_neox.layers"])] = None
    """the name of the list of blocks, such as "model.layers"; the module list of the blocks; default: derived"""
    body: Annotated[str | None, Field(examples=["gpt_neox"])] = None
    """a module name, or "" for the model itself; the module whose forward runs the blocks; default: derived"""
    inputs: Annotated[
        tuple[Annotated[Names, AfterValidator(_filled)], ...] | None,
        Field(strict=False),
        AfterValidator(_filled_if_any),
    ] = None
    """a list of lists of a block's linears that read the same tensor; each list shares one Gram matrix, and linears in
    no list are averaged; default: derived"""
    transposed: bool | None = None
    """true or false; whether weights are (in, out), as in Conv1D; default: derived"""
    embeddings: Annotated[Names | None, AfterValidator(_filled_if_any)] = None
    """a list of module names; what runs before the blocks; default: derived"""
    final_norm: Names | None = None
    """a list of module names; what runs after the blocks, before the head; default: derived"""
    head: Names | None = None
    """a list of module names; the head; default: derived"""
    towers: Names | None = None
    """a list of module names; what a row of the main input does not run through; default: derived"""
    optional: Names = ()
    """a list of module names; modules that a checkpoint may lack"""
    renames: Annotated[tuple[Rename, ...], Field(strict=False)] = ()
    r"""pairs such as ["^model\\.", ""]: expression, replacement; applied in order to the names in checkpoints"""
    pooled: Text | None = None
    """the name of a norm; with rows = "pixel_values": the norm of the first token, for `regstream evaluate`"""
    class_tokens: Annotated[int | None, Field(ge=0)] = None
    """a whole number; with rows = "pixel_values": tokens of an image besides its patches; default: derived"""

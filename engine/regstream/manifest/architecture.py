"""The `[architecture]` table: where an architecture that regstream does not know has its blocks, inputs and parts."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from regstream.manifest.value_types import Names, Rename, Table, Text


def _filled(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("expected at least one name, found an empty list")
    return values


class Architecture(Table):
    """Where an architecture that is not known has what. Module names are those of the transformers class."""

    model_class: Text = "AutoModelForCausalLM"
    """a class of transformers; builds the model from the base's config"""
    rows: Literal["input_ids", "pixel_values"] = "input_ids"
    """what the model reads: token ids or images"""
    blocks: Annotated[Text, Field(examples=["gpt_neox.layers"])]
    """the name of the list of blocks, such as "model.layers"; the module list of the blocks"""
    body: Annotated[str | None, Field(examples=["gpt_neox"])] = None
    """a module name, or "" for the model itself; the module whose forward runs the blocks; default: what holds them"""
    inputs: Annotated[
        tuple[Annotated[Names, AfterValidator(_filled)], ...], Field(strict=False), AfterValidator(_filled)
    ]
    """a list of lists of a block's linears that read the same tensor; each list shares one Gram matrix"""
    transposed: bool = False
    """true or false; whether weights are (in, out), as in Conv1D"""
    embeddings: Annotated[Names, AfterValidator(_filled)]
    """a list of module names; what runs before the blocks"""
    final_norm: Names = ()
    """a list of module names; what runs after the blocks, before the head"""
    head: Names = ()
    """a list of module names; the head. Embeddings, final norm and head together are all that is outside the blocks"""
    optional: Names = ()
    """a list of module names; modules that a checkpoint may lack"""
    renames: Annotated[tuple[Rename, ...], Field(strict=False)] = ()
    r"""pairs such as ["^model\\.", ""]: expression, replacement; applied in order to the names in checkpoints"""
    pooled: Text | None = None
    """the name of a norm; with rows = "pixel_values": the norm of the first token, for `regstream evaluate`"""
    class_tokens: Annotated[int, Field(ge=0)] = 1
    """a whole number; with rows = "pixel_values": tokens of an image besides its patches"""

    @property
    def running_body(self) -> str:
        """The module whose forward runs the blocks: by default the one that holds them."""
        return self.blocks.rpartition(".")[0] if self.body is None else self.body

    @property
    def parts(self) -> dict[Literal["embeddings", "final_norm", "head"], tuple[str, ...]]:
        """The modules outside the blocks, part by part."""
        return {"embeddings": self.embeddings, "final_norm": self.final_norm, "head": self.head}

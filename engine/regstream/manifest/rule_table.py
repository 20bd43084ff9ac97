"""A table of `[[rules]]`: what becomes of some parameters."""

from typing import Annotated, Literal

from pydantic import Field

from regstream.manifest.value_types import BlockSelector, Table, Text

Use = Literal["regress", "average", "base"]


class Rule(Table):
    """How to merge the parameters that a glob matches, in all blocks or in some."""

    parameters: Annotated[Text, Field(examples=["*.self_attn.*"])]
    """a glob on parameter names, such as "*.self_attn.*"; the parameters that the rule covers"""
    blocks: Annotated[BlockSelector | None, Field(examples=["0-7"])] = None
    """blocks, such as "0-7" or "late"; a block, a range, a list "0,4-7", or a third of them: early, middle or late;
    default: all"""
    use: Annotated[Use, Field(examples=["average"])]
    """how to merge these parameters"""

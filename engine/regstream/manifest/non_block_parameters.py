"""The [merge.others] table: what becomes of the parts of a model that no block holds."""

from typing import Annotated, Literal

from pydantic import Field

from regstream.manifest.value_types import Name, Table


class NonBlockParameters(Table):
    """The parts that no block holds: the base's, the mean, or those of a named candidate. None: as published."""

    embeddings: Annotated[Name | None, Field(examples=["base"])] = None
    """"base", "average" or a candidate's name; token, position or patch embeddings;
    default: "base" in language models with regmean, regmean++ and featcal, else as the rest of a block"""
    final_norm: Annotated[Name | None, Field(examples=["average"])] = None
    """"base", "average" or a candidate's name; the norm after the last block;
    default: "base" in CLIPs with regmean, regmean++ and featcal, else as the rest of a block"""
    head: Annotated[Name | None, Field(examples=["base"])] = None
    """"base", "average" or a candidate's name; the head, or an encoder's pooler;
    default: "base" in language models with regmean, regmean++ and featcal, else as the rest of a block"""
    towers: Annotated[Name | None, Field(examples=["average"])] = None
    """"base", "average" or a candidate's name; what a row of the model's main input does not run through: vision and
    audio towers with their projectors; default: as the rest of a block"""
    vocabulary: Literal["same", "base"] = "same"
    """"same" refuses candidates with additional vocabulary rows, "base" drops these rows"""
    tied_head: Literal["refuse", "untie"] = "refuse"
    """"untie" merges a head separately that differs from the embeddings it is tied to"""

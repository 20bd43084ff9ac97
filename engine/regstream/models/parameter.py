"""A parameter of a model: its names and its shape, passed around in place of strings that are converted."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter under each name it has."""

    name: str  # the model's: model.layers.3.mlp.up_proj.weight
    block_name: str  # within its block: mlp.up_proj.weight; outside the blocks as `name`
    stored_name: str  # in the files of the base and of the result
    shape: tuple[int, ...]

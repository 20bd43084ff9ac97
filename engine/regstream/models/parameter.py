"""A parameter of a model: its names and its shape, passed around in place of strings that are converted."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter under each name it has."""

    name: str  # the model's: model.layers.3.mlp.up_proj.weight
    block_name: str  # within its block: mlp.up_proj.weight; outside the blocks as `name`
    stored_name: str  # in the files of the base and of the result
    shape: tuple[int, ...]
    stored_shape: tuple[int, ...] = ()  # of the tensor in these files, where the parameter is a part of it

    @property
    def recorded_name(self) -> str:
        """What records and reports call it: its name in the files, or its own as a part of a larger tensor."""
        return self.name if self.stored_shape else self.stored_name

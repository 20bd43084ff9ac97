"""A table of `[[rules]]`: what becomes of some parameters, and the settings that they are merged with."""

from functools import cached_property
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import Field, PlainValidator, SerializeAsAny

from regstream.manifest.method_options import RULE_OPTIONS, rule_options
from regstream.manifest.value_types import BlockSelector, Density, Name, Scale, Table, Text, Weight
from regstream.methods.by_block import ByBlock
from regstream.methods.method import MethodOptions

Use = Literal["regress", "average", "base"]


class Setting(NamedTuple):
    """What a rule may give: `use`, a number of the method, or `weight` or `scale` of one candidate."""

    key: str
    candidate: str | None = None

    def __str__(self) -> str:
        """What messages call it."""
        return self.key if self.candidate is None else f'{self.key} of "{self.candidate}"'


USE: Final = Setting("use")
#: The keys that a rule gives for the candidate that it names.
OF_CANDIDATE: Final = ("weight", "scale", "density")


class Rule(Table):
    """How to merge the parameters that a glob matches, in all blocks or in some."""

    parameters: Annotated[Text, Field(examples=["*.self_attn.*"])]
    """a glob on parameter names, such as "*.self_attn.*"; the parameters that the rule covers"""
    blocks: Annotated[BlockSelector | None, Field(examples=["0-7"])] = None
    """blocks, such as "0-7" or "late"; a block, a range, a list "0,4-7", or a third of them: early, middle or late;
    default: all"""
    use: Annotated[Use | None, Field(examples=["average"])] = None
    """how to merge these parameters; default: as without the rule"""
    candidate: Annotated[Name | None, Field(examples=["math"])] = None
    """a candidate's name; the candidate whose weight, scale or density the rule gives"""
    weight: Annotated[Weight | None, Field(examples=[0.5])] = None
    """a number from 0 on; takes the place of the candidate's weight"""
    scale: Annotated[Scale | None, Field(examples=[0.3])] = None
    """a number from -1000 to 1000; takes the place of the candidate's scale; without candidate, of the method's"""
    density: Annotated[Density | None, Field(examples=[0.5])] = None
    """a number above 0, at most 1; takes the place of the candidate's density; without candidate, of the method's"""
    options: Annotated[SerializeAsAny[MethodOptions], PlainValidator(rule_options), Field(alias=RULE_OPTIONS)] = (
        MethodOptions()
    )

    @cached_property
    def settings(self) -> dict[Setting, ByBlock | str]:
        """What the rule gives; a list is over all blocks, not over those of the rule."""
        found: dict[Setting, Any] = {} if self.use is None else {USE: self.use}
        found |= {Setting(key): getattr(self.options, key) for key in sorted(self.options.model_fields_set)}
        own = {Setting(key, self.candidate): getattr(self, key) for key in OF_CANDIDATE}
        return found | {setting: value for setting, value in own.items() if value is not None}

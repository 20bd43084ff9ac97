"""The types of a manifest's values beyond text and numbers.

Each converts a TOML value to what the engine works with. Paths are relative to the folder that validation gets
as its context (the manifest's), or to the current one where there is none.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    PlainValidator,
    StringConstraints,
    ValidationInfo,
)
from pydantic_core import PydanticKnownError

from regstream.manifest.blocks import parse_blocks
from regstream.manifest.bounded_regex import check_regex
from regstream.manifest.class_lists import class_list_path
from regstream.manifest.references import HUB_NAME, ModelRef, absolute_path, parse_model_ref
from regstream.methods.by_block import ByBlock, each_block
from regstream.units import parse_bytes

#: Kinds of devices; all but the first may be numbered, "cuda:1".
DEVICES = ["cpu", "cuda"]
_DEVICE = re.compile(r"([a-z]+)(:[0-9]{1,3})?")
#: The oldest data sets have no owner.
_HUB_DATASET = re.compile(rf"(?:{HUB_NAME}/)?{HUB_NAME}")
_MAX_BYTES: Final = 2**63 - 1
#: What names a tokenizer or a chat template besides a candidate's name.
BASE: Final = "base"
UNION: Final = "union"
TEMPLATE_SUFFIX: Final = ".jinja"


class Table(BaseModel):
    """A table of a manifest: frozen, without further keys; the string below a key is its description."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def some_candidates(candidates: tuple[Any, ...]) -> tuple[Any, ...]:
    """Candidates, of which there is one at least.

    Raises:
        ValueError: there is none.
    """
    # Not `min_length`: pydantic leaves out elements that are wrong by themselves when it counts.
    if not candidates:
        raise ValueError("expected at least one [[candidates]] table, found none")
    return candidates


def is_device(text: str) -> bool:
    """Whether a text names a device, on this machine or another."""
    match = _DEVICE.fullmatch(text)
    return match is not None and match[1] in DEVICES and not (match[1] == DEVICES[0] and match[2])


def parse_device(text: str) -> str:
    """Check a device's name: "cpu", "cuda" or "cuda:1".

    Raises:
        ValueError: the text names no device.
    """
    if text == "mps":
        raise ValueError('"mps" is not supported: sums and their refinement need float64, which it lacks; use "cpu"')
    if not is_device(text):
        raise ValueError(f'expected a device, "cpu", "cuda" or "cuda:1", found "{text}"')
    return text


def _folder(info: ValidationInfo) -> Path:
    return info.context if isinstance(info.context, Path) else Path.cwd()


def _read_place(value: object, info: ValidationInfo) -> object:
    return absolute_path(value, _folder(info)) if isinstance(value, str) else value


def _read_class_list(value: object, info: ValidationInfo) -> object:
    return class_list_path(value, _folder(info)) if isinstance(value, str) else value


def is_template_file(text: str) -> bool:
    """Whether a chat template is named by its file."""
    return text.endswith(TEMPLATE_SUFFIX)


def _read_template(value: object, info: ValidationInfo) -> str | Path:
    if not isinstance(value, str) or not value:
        raise PydanticKnownError("string_type")
    return absolute_path(value, _folder(info)) if is_template_file(value) else value


def _read_model(value: object, info: ValidationInfo) -> object:
    return parse_model_ref(value, _folder(info)) if isinstance(value, str) else value


def _read_size(value: object) -> object:
    if not isinstance(value, str):
        # A bare number is refused: whoever writes `8` more often means gibibytes than bytes.
        raise PydanticKnownError("string_type")
    num_bytes = parse_bytes(value)
    if not 0 < num_bytes <= _MAX_BYTES:
        raise ValueError(f'expected a size from 1 byte to 8 EiB, found "{value:.40}"')
    return num_bytes


def _check_blocks(text: str) -> str:
    parse_blocks(text)
    return text


def _check_rename(pair: tuple[str, str]) -> tuple[str, str]:
    pattern, replacement = pair
    try:
        re.compile(check_regex(pattern)).sub(replacement, "")
    except (ValueError, re.error, IndexError) as error:
        raise ValueError(f'expected a regular expression and its replacement, found "{pattern}": {error}') from error
    return pair


def _check_dataset(text: str) -> str:
    if _HUB_DATASET.fullmatch(text) is None:
        raise ValueError(f'expected a data set\'s hub id, "org/name" (its revision in its own key), found "{text}"')
    return text


Text = Annotated[str, StringConstraints(min_length=1)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$", max_length=100)]
Place = Annotated[Path, BeforeValidator(_read_place)]
Classes = Annotated[Path, BeforeValidator(_read_class_list)]
Model = Annotated[InstanceOf[ModelRef], BeforeValidator(_read_model)]
SizeBytes = Annotated[int, BeforeValidator(_read_size)]
Device = Annotated[str, AfterValidator(parse_device)]
BlockSelector = Annotated[str, AfterValidator(_check_blocks)]
#: Several of something; not strict, since TOML has lists.
Names = Annotated[tuple[Text, ...], Field(strict=False)]
Rename = Annotated[tuple[str, str], Field(strict=False), AfterValidator(_check_rename)]
#: The name of a model in the manifest, or a file.
Template = Annotated[str | Path, PlainValidator(_read_template)]
DatasetId = Annotated[str, AfterValidator(_check_dataset)]
#: Of a candidate, each over the blocks.
Weight = Annotated[ByBlock, each_block(Annotated[float, Field(ge=0)])]
Scale = Annotated[ByBlock, each_block(Annotated[float, Field(ge=-1000, le=1000)])]
Density = Annotated[ByBlock, each_block(Annotated[float, Field(gt=0, le=1)])]

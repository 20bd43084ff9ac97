"""Every key of a manifest, its type, its range and its default.

A field's `description` is what a person is told was expected there. `consistency` has what one key demands of another.
"""

import hashlib
import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from regstream.manifest.fields import (
    BlockSelector,
    DatasetId,
    Device,
    Model,
    Name,
    Names,
    Place,
    Rename,
    SizeBytes,
    Text,
)
from regstream.manifest.references import resolve_links
from regstream.manifest.shares import shares

Method = Literal["average", "task_arithmetic", "regmean", "regmean++"]
Use = Literal["regress", "average", "base"]
Dtype = Literal["float32", "float16", "bfloat16"]
OtherUse = Literal["base", "average"]

STATE: Final = ".regstream"
_MOST_NAME: Final = 100
REGRESSING: Final[frozenset[str]] = frozenset({"regmean", "regmean++"})
_MAX_SEED: Final = 2**63 - 1


def _not_empty(candidates: tuple[Any, ...]) -> tuple[Any, ...]:
    # Not `min_length`: pydantic leaves out elements that are wrong by themselves when it counts.
    if not candidates:
        raise ValueError("expected at least one [[candidates]] table, found none")
    return candidates


def _filled(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("expected at least one name, found an empty list")
    return values


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Others(_Table):
    """What becomes of the parts that no block holds. None: as was published for the family."""

    embeddings: OtherUse | None = None
    final_norm: OtherUse | None = None
    head: OtherUse | None = None
    vocabulary: Annotated[
        Literal["same", "base"],
        Field(description="whether candidates with other rows than the base's are refused or cut to the base's"),
    ] = "same"
    tied_head: Annotated[
        Literal["refuse", "untie"],
        Field(description="whether a head that differs from the embeddings it is tied to is refused or untied"),
    ] = "refuse"


class Merge(_Table):
    """What is merged onto what, how, and where the result goes."""

    method: Method
    base: Annotated[Model, Field(description="a folder or a hub id, of the checkpoint the candidates were tuned from")]
    output: Annotated[Place, Field(description="the folder for the result")]
    alpha: Annotated[float, Field(ge=0, le=1, description="a number from 0 to 1")] = 0.95
    scale: Annotated[float, Field(gt=0, description="a number above 0")] = 0.3
    dtype: Dtype | None = None
    shard_size: Annotated[SizeBytes | None, Field(description='a size, such as "5GiB"')] = None
    seed: Annotated[int, Field(ge=0, le=_MAX_SEED, description="a whole number from 0 to 2^63 - 1")] = 0
    others: Annotated[Others, Field(description="a table")] = Others()

    @property
    def regresses(self) -> bool:
        """Whether the method solves regressions, and so needs calibration sets."""
        return self.method in REGRESSING


class Architecture(_Table):
    """Where an architecture that is not known has what. Module names are those of the transformers class."""

    model_class: Annotated[Text, Field(description="a class of transformers")] = "AutoModelForCausalLM"
    rows: Literal["input_ids", "pixel_values"] = "input_ids"
    blocks: Annotated[Text, Field(description='the name of the list of blocks, such as "model.layers"')]
    body: Annotated[str | None, Field(description='the module that runs the blocks; "" for the model')] = None
    inputs: Annotated[
        tuple[Annotated[Names, AfterValidator(_filled)], ...],
        Field(strict=False, description="a list of lists of a block's linears that read the same tensor"),
        AfterValidator(_filled),
    ]
    transposed: Annotated[bool, Field(description="true or false")] = False
    embeddings: Annotated[Names, Field(description="a list of module names"), AfterValidator(_filled)]
    final_norm: Annotated[Names, Field(description="a list of module names")] = ()
    head: Annotated[Names, Field(description="a list of module names")] = ()
    optional: Annotated[Names, Field(description="a list of module names")] = ()
    renames: Annotated[
        tuple[Rename, ...], Field(strict=False, description='pairs such as ["^model\\.", ""]: expression, replacement')
    ] = ()
    pooled: Annotated[Text | None, Field(description="the name of a norm")] = None
    class_tokens: Annotated[int, Field(ge=0, description="a whole number")] = 1

    @property
    def running_body(self) -> str:
        """The module whose forward runs the blocks: by default the one that holds them."""
        return self.blocks.rpartition(".")[0] if self.body is None else self.body

    @property
    def parts(self) -> dict[Literal["embeddings", "final_norm", "head"], tuple[str, ...]]:
        """The modules outside the blocks, part by part."""
        return {"embeddings": self.embeddings, "final_norm": self.final_norm, "head": self.head}


class Rule(_Table):
    """What becomes of the parameters that a glob names, in all blocks or in some."""

    parameters: Annotated[Text, Field(description='a glob on parameter names, such as "*.self_attn.*"')]
    blocks: Annotated[BlockSelector | None, Field(description='blocks, such as "0-7" or "late"')] = None
    use: Use


class Calibration(_Table):
    """Rows of a candidate's own data, from a file or folder or a data set of the hub.

    `rows` None: all of them. `batch_rows` None: as many as suit the model's width and their length.
    """

    path: Annotated[Place | None, Field(description="a file or a folder of images")] = None
    dataset: Annotated[DatasetId | None, Field(description="a data set's hub id")] = None
    config: Annotated[Text | None, Field(description="the name of a configuration of the data set")] = None
    split: Annotated[Text | None, Field(description="the name of a split of the data set")] = None
    revision: Annotated[Text | None, Field(description="a revision of the data set")] = None
    field: Annotated[
        Text, Field(description='the name of a field, "input_ids", "messages", or a text with fields in {braces}')
    ] = "text"
    rows: Annotated[int | None, Field(gt=0, description="a whole number above 0")] = None
    max_length: Annotated[int, Field(gt=0, description="a whole number of tokens above 0")] = 2048
    batch_rows: Annotated[int | None, Field(gt=0, description="a whole number above 0")] = None


class HeldOut(Calibration):
    """Held-out rows. Images have labels, and a head that tells their classes, or the classes' names to make one of."""

    label: Annotated[Text, Field(description="the name of a column of whole numbers")] = "label"
    head: Annotated[Place | None, Field(description="a .safetensors file")] = None
    classes: Annotated[Place | None, Field(description="a .toml file")] = None


class Candidate(_Table):
    """A fine-tuned checkpoint: a model, an adapter on a model, or an adapter on the base."""

    name: Annotated[
        Name, Field(description="a name of up to 100 letters, digits and . _ - that starts with none of . -")
    ]
    model: Annotated[Model | None, Field(description="a folder or a hub id")] = None
    adapter: Annotated[Model | None, Field(description="a folder or a hub id of a PEFT LoRA adapter")] = None
    weight: Annotated[float, Field(gt=0, description="a number above 0")] = 1.0
    calibration: Annotated[Calibration | None, Field(description="a table")] = None
    evaluation: Annotated[HeldOut | None, Field(description="a table")] = None


class Evaluation(_Table):
    """What candidates are judged with in common."""

    text_tower: Annotated[
        Model | None, Field(description="a folder or a hub id, of a whole CLIP, where the base is its vision tower")
    ] = None


class Resources(_Table):
    """What the run may take. Sizes are in bytes; None: what is free, less a margin.

    `workdir` is the folder in which a run makes one of its own; None: the output.
    """

    device: Annotated[Device | None, Field(description='"cpu", "cuda", "cuda:1" or "mps"')] = None
    device_memory: Annotated[SizeBytes | None, Field(description='a size, such as "8GiB"')] = None
    host_memory: Annotated[SizeBytes | None, Field(description='a size, such as "8GiB"')] = None
    disk: Annotated[SizeBytes | None, Field(description='a size, such as "100GiB"')] = None
    workdir: Annotated[Place | None, Field(description="a folder")] = None


class Manifest(_Table):
    """All that a merge is asked to be. `read_manifest` makes one, and also checks it against itself and the disk."""

    merge: Annotated[Merge, Field(description="a [merge] table")]
    architecture: Annotated[Architecture | None, Field(description="an [architecture] table")] = None
    rules: Annotated[tuple[Rule, ...], Field(strict=False, description="[[rules]] tables")] = ()
    candidates: Annotated[
        tuple[Candidate, ...],
        Field(strict=False, description="[[candidates]] tables, one for each checkpoint"),
        AfterValidator(_not_empty),
    ]
    evaluation: Annotated[Evaluation, Field(description="an [evaluation] table")] = Evaluation()
    resources: Annotated[Resources, Field(description="a [resources] table")] = Resources()

    @property
    def shares(self) -> tuple[float, ...]:
        """Each candidate's weight over the mean of all: what multiplies it in sums and means."""
        return shares([candidate.weight for candidate in self.candidates])

    @property
    def state(self) -> Path:
        """The folder in the output that a run marks as its own; the lock is there, wherever its other state is."""
        return self.merge.output / STATE

    @property
    def workdir(self) -> Path:
        """Where the state of a run lies: a folder of its own in `[resources] workdir`, by default in the output."""
        parent, output = self.resources.workdir, self.merge.output
        if parent is None:
            return self.state
        digest = hashlib.sha256(os.fsencode(resolve_links(output))).hexdigest()
        return parent / f"regstream-{output.name[:_MOST_NAME]}-{digest[:8]}"

"""Every key of a manifest but those of `[architecture]`: its type, its range, its default and its description.

Pydantic takes the string below a key as its description; `keys` says how one is written. `consistency` has what one key
demands of another.
"""

import hashlib
import os
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, PlainValidator, PrivateAttr, SerializeAsAny, model_validator

from regstream.manifest.architecture import ArchitectureTable
from regstream.manifest.method_options import (
    OPTIONS,
    method_options,
    registered,
    separate_options,
    separate_rules,
)
from regstream.manifest.non_block_parameters import NonBlockParameters
from regstream.manifest.references import resolve_links
from regstream.manifest.resources import Resources
from regstream.manifest.rule_table import Rule
from regstream.manifest.value_types import (
    Classes,
    DatasetId,
    Density,
    Model,
    Name,
    Place,
    Scale,
    SizeBytes,
    Table,
    Template,
    Text,
    Weight,
    some_candidates,
)
from regstream.methods import METHODS, make_method
from regstream.methods.by_block import options_by_block
from regstream.methods.method import MethodOptions
from regstream.methods.search_space import Settings
from regstream.storage.run_folder import STATE

Dtype = Literal["float32", "float16", "bfloat16"]

_MAX_NAME_CHARS: Final = 100
_MAX_SEED: Final = 2**63 - 1


class Merge(Table):
    """What is merged, how, and where the result goes. The method adds its `options` to the keys of this table."""

    method: Annotated[str, AfterValidator(registered), Field(examples=list(METHODS))]
    """how to merge; regmean, regmean++, regfilter and featcal need calibration sets; auto first finds the settings of
    regmean++, as `regstream tune` does"""
    base: Annotated[Model | None, Field(examples=["org/name"])] = None
    """a folder or a hub id; the checkpoint that the candidates were fine-tuned from; default: none, with average and
    slerp alone, and then the first candidate's class, config and tokenizer"""
    prior_model: Annotated[Model | None, Field(examples=["org/merged"])] = None
    """a folder or a hub id; a merge that any tool made, which regfilter corrects where its prior is model"""
    output: Place
    """a folder; receives the result"""
    options: Annotated[
        SerializeAsAny[MethodOptions], PlainValidator(method_options), Field(alias=OPTIONS, validate_default=True)
    ] = MethodOptions()
    dtype: Annotated[Dtype | None, Field(examples=["bfloat16"])] = None
    """the dtype of the result; default: the dtype of most of the base's values"""
    shard_size: Annotated[SizeBytes | None, Field(examples=["5GiB"])] = None
    """a size, such as "5GiB"; consecutive blocks share a file up to this size; default: a file for each block"""
    seed: Annotated[int, Field(ge=0, le=_MAX_SEED)] = 0
    """a whole number from 0 to 2^63 - 1; selects the sample of rows, and what dare_linear and dare_ties drop"""
    tokenizer: Annotated[Name | None, Field(examples=["union"])] = None
    """"base", "union" or a candidate's name; whose tokenizer and vocabulary the result has; union is the base's and
    the tokens that candidates added; default: the base's"""
    chat_template: Annotated[Template | None, Field(examples=["math"])] = None
    """"base", a candidate's name, or a .jinja file; whose chat template the result has; default: that of whose
    tokenizer it has"""
    pad_to_multiple_of: Annotated[int | None, Field(gt=0, le=1 << 16, examples=[64])] = None
    """a whole number from 1 to 65536; the rows of the result's embeddings and head become a multiple of it"""
    others: NonBlockParameters = NonBlockParameters()
    """a table; the parts of the model that no block holds"""

    _separated = model_validator(mode="before")(separate_options)

    @property
    def regresses(self) -> bool:
        """Whether the method solves regressions, and so needs calibration sets."""
        return make_method(self.method, self.options).needs_calibration()


class Calibration(Table):
    """Rows of a candidate's own data. `rows` None: all of them; `batch_rows` None: as many as suit width and length."""

    path: Place | None = None
    """a file or a folder of images; .jsonl, .json, .csv, .txt, .parquet, .safetensors, or a folder of images"""
    dataset: Annotated[DatasetId | None, Field(examples=["org/name"])] = None
    """a data set's hub id; a data set of the hub, in place of path"""
    config: Annotated[Text | None, Field(examples=["default"])] = None
    """the name of a configuration; needed if the data set has several"""
    split: Annotated[Text | None, Field(examples=["train"])] = None
    """the name of a split; needed if the data set has several"""
    revision: Annotated[Text | None, Field(examples=["main"])] = None
    """a revision of the data set; a branch, tag or commit; default: the main branch"""
    field: Text = "text"
    """the name of a field, "input_ids", "messages", "alpaca", or a text with fields in {braces}; text, token ids, a
    chat, Alpaca's instruction, input and output, or several fields, such as "{question}\\n{answer}\""""
    target: Annotated[Text | None, Field(examples=["summary"])] = None
    """a text, as field, "labels" or "decoder_input_ids"; what a model of an encoder and a decoder is to write for a
    row: text, token ids (labels), or those as its decoder reads them; default: with token ids in field, labels"""
    images: Annotated[Text | None, Field(examples=["image"])] = None
    """the name of a field; the images of rows of text: paths in a .jsonl, .json or .csv, encoded images in a table;
    default: those that messages name"""
    rows: Annotated[int | None, Field(gt=0, examples=[256])] = None
    """a whole number above 0; the number of rows, sampled with the seed; default: all"""
    max_length: Annotated[int, Field(gt=0)] = 2048
    """a whole number of tokens above 0; truncates each row to this many tokens"""
    batch_rows: Annotated[int | None, Field(gt=0, examples=[8])] = None
    """a whole number above 0; rows in a batch; default: chosen from the rows' length and the model's width"""

    _part: slice = PrivateAttr(slice(None))

    @property
    def part(self) -> slice:
        """Which of the rows count, in an order drawn by the seed; all of them in a manifest."""
        return self._part

    def only(self, part: slice) -> Self:
        """The same table, of whose rows only a part counts."""
        table = self.model_copy()
        table._part = part
        return table


class HeldOut(Calibration):
    """Held-out rows. Images have labels, and either a classifier head or the classes' names to build one from."""

    label: Text = "label"
    """the name of a column of whole numbers; the labels in a table of images"""
    head: Annotated[Place | None, Field(examples=["head.safetensors"])] = None
    """a .safetensors file; a classifier of images: `weight` (classes, features)"""
    classes: Annotated[Classes | None, Field(examples=["cifar10"])] = None
    """a .toml file, or the name of a class list; names and templates, from which a CLIP's text tower computes a head"""


class Candidate(Table):
    """A fine-tuned checkpoint: a model, an adapter on a model, or an adapter on the base."""

    name: Name
    """a name of up to 100 letters, digits and . _ - that starts with none of . -; unique, ignoring case"""
    model: Annotated[Model | None, Field(examples=["org/name"])] = None
    """a folder or a hub id; the fine-tuned model, or the model under the adapter; default: with an adapter, the base"""
    adapter: Annotated[Model | None, Field(examples=["org/name"])] = None
    """a folder or a hub id; a LoRA adapter of PEFT on the model"""
    weight: Weight = 1.0
    """a number from 0 on; multiplies the candidate in sums and means, which leave it out at 0; only the ratios of
    weights count"""
    scale: Annotated[Scale | None, Field(examples=[0.3])] = None
    """a number from -1000 to 1000; multiplies the candidate's difference from the base, with task_arithmetic, ties,
    dare_linear and dare_ties, which take it away below 0; default: the scale of the merge"""
    density: Annotated[Density | None, Field(examples=[0.5])] = None
    """a number above 0, at most 1; takes the place of the merge's density; default: the density of the merge"""
    calibration: Calibration | None = None
    """a table; the rows that regressions compute their statistics from"""
    evaluation: HeldOut | None = None
    """a table; held-out rows for `regstream evaluate`, with the keys of calibration"""


class Evaluation(Table):
    """What the evaluations of all candidates share."""

    text_tower: Annotated[Model | None, Field(examples=["org/clip"])] = None
    """a folder or a hub id; the whole CLIP that encodes `classes`, if the base is a vision tower alone"""


class Manifest(Table):
    """A whole manifest. What reads files or tables also checks the keys against each other and against the disk."""

    merge: Merge
    """a [merge] table; what is merged, how, and where the result goes"""
    architecture: ArchitectureTable | None = None
    """an [architecture] table; says of the base's model what is to differ from what is derived from it"""
    rules: Annotated[tuple[Rule, ...], Field(strict=False)] = ()
    """[[rules]] tables; a rule may also give any number of the method; of the rules that match a parameter and give a
    setting the first wins; default: regress linears, average the rest of a block"""
    candidates: Annotated[tuple[Candidate, ...], Field(strict=False), AfterValidator(some_candidates)]
    """[[candidates]] tables, one for each checkpoint; the fine-tuned models to merge"""
    evaluation: Evaluation = Evaluation()
    """an [evaluation] table; what the evaluations of all candidates share"""
    resources: Resources = Resources()
    """a [resources] table; device, memory and disk"""

    _separated = model_validator(mode="before")(separate_rules)
    _text: str = PrivateAttr("")
    _source: str = PrivateAttr("manifest")

    @property
    def text(self) -> str:
        """Its TOML, for the record."""
        return self._text

    @property
    def source(self) -> str:
        """What errors call it: the name of its file, or "manifest"."""
        return self._source

    def read_from(self, text: str, source: str) -> Self:
        """The same manifest, as read from a text in a file of a name."""
        manifest = self.model_copy()
        manifest._text, manifest._source = text, source
        return manifest

    def with_settings(self, settings: Settings) -> Self:
        """The same manifest with these options of its method in place of any that are tried."""
        method = make_method(self.merge.method, self.merge.options)
        tried = {key for other in method.search_space() for key in other}
        given = self.merge.options.model_dump(exclude=tried, exclude_unset=True)
        options = options_by_block(method.Options).model_validate({**given, **settings})
        return self.model_copy(update={"merge": self.merge.model_copy(update={"options": options})})

    @property
    def candidate_names(self) -> tuple[str, ...]:
        """The names of the candidates."""
        return tuple(candidate.name for candidate in self.candidates)

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
        return parent / f"regstream-{output.name[:_MAX_NAME_CHARS]}-{digest[:8]}"

"""One checkpoint: its config, and its tensors under the model's own names."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from regstream.checkpoint.config_checks import check_num_blocks, named_class
from regstream.checkpoint.header import TensorSpec, WholeTensor
from regstream.checkpoint.joined_tensors import split_joined
from regstream.checkpoint.own_names import own_names
from regstream.checkpoint.reader import TensorReader
from regstream.checkpoint.row_map import RowMap
from regstream.checkpoint.source import LOCAL, Source
from regstream.checkpoint.tensor_index import read_tensor_index, unindexed_files
from regstream.checkpoint.wrapper_names import prefix_hint, strip_wrapper_names
from regstream.errors import InputError, label_boundary
from regstream.models.architecture.architecture import Architecture
from regstream.models.architecture.nested_models import MERGED_ALONE
from regstream.models.config.build import build_config
from regstream.models.config.config_file import CONFIG, read_config
from regstream.models.config.nested import nested_config
from regstream.models.derivation.derive import derive_architecture
from regstream.models.derivation.model_class import is_model_class
from regstream.units import format_names

#: From the JSON of a config, and its file, to the architecture that it describes.
Derive = Callable[[Mapping[str, Any], Path], Architecture]


class Checkpoint(TensorReader):
    """A folder of safetensors, open for reading.

    `tensors` has what belongs to the model, by the model's own parameter names (the files may use others:
    `stored_name`). `other_tensors` reads the rest, such as the text tower of a whole CLIP, by the names in the files.
    """

    #: Parameters that an adapter changes.
    adapted_names: Set[str] = frozenset()

    def __init__(
        self,
        label: str,
        folder: Path,
        source: Source,
        architecture: Architecture,
        *,
        config: Mapping[str, Any],
        tensor_index: Mapping[str, TensorSpec],
        notes: Iterable[str] = (),
    ) -> None:
        self.folder = folder
        self.config = config
        self.architecture = architecture
        self.tensor_index = tensor_index  # by the names in the files
        self.notes = tuple(notes)  # warnings about how it was read
        self._stored = own_names(architecture, tensor_index)
        super().__init__(label, {own: tensor_index[name] for own, name in self._stored.items()}, source)
        others = {name: tensor_index[name] for name in tensor_index.keys() - self._stored.values()}
        self.other_tensors = TensorReader(label, others, source)

    def config_with(self, **values: object) -> PreTrainedConfig:
        """Its config with some values replaced, as transformers reads it; raises as `model_config` does."""
        with label_boundary(self.label):
            model_type = self.architecture.model_type
            return build_config({**self.config, **values}, self.folder / CONFIG, model_type)

    def override_config(self, **values: object) -> None:
        """Replace some values of its config."""
        self.config = {**self.config, **values}
        vars(self).pop("model_config", None)

    @cached_property
    def model_config(self) -> PreTrainedConfig:
        """Its config as transformers reads it, with the defaults of its class.

        Raises:
            InputError: its class refuses it, or it needs code from the hub.
        """
        return self.config_with()

    @property
    def num_blocks(self) -> int:
        """The number of blocks with tensors in its files."""
        return len({self.architecture.block_of(name) for name in self.tensors} - {None})

    @property
    def ignored_names(self) -> tuple[str, ...]:
        """The names in the files of tensors that do not belong to the model."""
        return tuple(sorted(self.other_tensors.tensors))

    def stored_name(self, name: str) -> str:
        """The name in the files of a parameter, or of the tensor that it is a part of; its own where they lack it."""
        whole = self._whole_tensor(name)
        return self.indexed_name(name) if whole is None else whole.name

    def stored_shape(self, name: str) -> tuple[int, ...]:
        """The shape of the tensor in the files that a parameter is a part of; () for one that they hold by itself."""
        whole = self._whole_tensor(name)
        return () if whole is None else whole.shape

    def indexed_name(self, name: str) -> str:
        """A parameter's name in `tensor_index`; its own where the files lack it."""
        return self._stored.get(name, name)

    def _whole_tensor(self, name: str) -> WholeTensor | None:
        return None if (spec := self.tensors.get(name)) is None else spec.whole

    def add_outside_tensors(self, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """Add tensors outside the model, by their names in the files; returns shapes by the names in `tensors`."""
        by_stored = {stored: own for own, stored in self._stored.items()}
        own_names = {by_stored.get(name, name): name for name in names}
        self._stored |= own_names
        self.tensors = {**self.tensors, **{own: self.tensor_index[name] for own, name in own_names.items()}}
        others = {name: spec for name, spec in self.other_tensors.tensors.items() if name not in own_names.values()}
        self.other_tensors = TensorReader(self.label, others, self.source)
        return {own: self.tensor_index[name].shape for own, name in own_names.items()}

    def give_own_tensor(self, name: str, source: str) -> None:
        """Give a parameter that is tied to `source` a tensor of its own: that of `source` where it has none."""
        if name not in self.tensors:
            self.tensors = {**self.tensors, name: self.tensors[source]}

    def present_rows(self, maps: Mapping[str, RowMap]) -> None:
        """Have rows of these tensors read as the maps say."""
        self.tensors = {**self.tensors, **{n: replace(self.tensors[n], shape=m.shape, rows=m) for n, m in maps.items()}}

    def shares_tensor(self, other: "Checkpoint", name: str) -> bool:
        """Whether a parameter is the other checkpoint's, of the same file, and no adapter changes it."""
        return name not in self.adapted_names and self.tensors.get(name) == other.tensors.get(name)

    def missing_optional(self, names: Iterable[str]) -> set[str]:
        """Which of these parameters are optional and missing."""
        optional = tuple(f"{module}." for module in self.architecture.optional)
        return {name for name in names if name not in self.tensors and name.startswith(optional)}

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of its tensors, in order of their names."""
        read = self._own_readers_of(tuple(self.tensors))
        return tuple(sorted({reader.tensors[name].file for reader, names in read for name in names}))

    @property
    def inputs(self) -> Mapping[str, tuple[Source, Path]]:
        """The files that determine its weights, with their source, by their names in records."""
        files = self.files
        shards = {f"shard {i} of {len(files)}, {file.name}": file for i, file in enumerate(files, start=1)}
        return {name: (self.source, file) for name, file in {CONFIG: self.folder / CONFIG, **shards}.items()}

    def readers_of(self, names: Iterable[str]) -> Iterator[tuple[TensorReader, tuple[str, ...]]]:
        """What a read of these tensors reads: readers, and the names of tensors in each."""
        yield from self._own_readers_of(wanted := tuple(names))
        for spec in (self.tensors.get(name) for name in wanted):
            yield from () if spec is None or spec.rows is None else spec.rows.readers()

    def _own_readers_of(self, names: tuple[str, ...]) -> Iterator[tuple[TensorReader, tuple[str, ...]]]:
        """The same without other checkpoints."""
        yield self, names

    def scratch_bytes(self, names: Iterable[str]) -> int:
        """The memory that a read of these tensors takes besides their buffers."""
        specs = (self.tensors[name] for name in names if name in self.tensors)
        return max((spec.rows.scratch_bytes for spec in specs if spec.rows is not None), default=0)

    def cached_bytes(self, names: Iterable[str]) -> int:  # noqa: ARG002
        """The memory that a read of these tensors leaves in a cache."""
        return 0


def open_checkpoint(
    label: str,
    folder: Path,
    source: Source = LOCAL,
    *,
    architecture: Architecture | None = None,
    derive: Derive = derive_architecture,
) -> Checkpoint:
    """Open a checkpoint folder; `label` ("base", "candidate math") goes into every error.

    `architecture` is the base's, which the folder must have too; without it, `derive` makes it from the config.

    Raises:
        InputError: config or headers are missing or damaged, or the architecture is another or cannot be merged.
    """
    with label_boundary(label):
        config, file = read_config(folder), folder / CONFIG
        stored = read_tensor_index(folder, source)
        check_num_blocks(config, file, stored)
        if architecture is None:
            architecture = derive(config, file)
        elif not _has_architecture(config, architecture):
            raise InputError(
                f'{folder}: model_type "{config.get("model_type")}", where the base is {architecture.name}; only'
                " checkpoints of one architecture can be merged"
            )
        if architecture.nested is not None:
            config = nested_config(architecture.nested, config, file)
        tensor_index, notes = _strip_wrappers(label, architecture, stored)
        tensor_index, joined = split_joined(architecture, tensor_index)
        if joined:
            pieces = " and ".join(architecture.pieces(joined[0]))
            notes.append(f"{label}: {joined[0]} and others like it are read as {pieces}; the result holds them apart")
        if (named := named_class(config)) is not None and architecture.nested is None and not is_model_class(named):
            read_as = f"it is read, and the result saved, as {architecture.model_class}"
            notes.append(f"{label}: {CONFIG} names {named}, which transformers does not have; {read_as}")
        if unindexed := unindexed_files(folder, source):
            reason = "its index does not name it; libraries may load it instead"
            notes.append(f"{label}: left out: {format_names(unindexed, 1)}: {reason}")
        checkpoint = Checkpoint(
            label, folder, source, architecture, config=config, tensor_index=tensor_index, notes=notes
        )
    _check_blocks(checkpoint)
    return checkpoint


def _has_architecture(config: Mapping[str, Any], architecture: Architecture) -> bool:
    model_type = str(config.get("model_type"))
    nested = MERGED_ALONE.get(model_type)
    return model_type == architecture.file_type if nested is None else nested == architecture.nested


def _check_blocks(checkpoint: Checkpoint) -> None:
    """Refuse a config with more blocks than the files, before a model is built from it."""
    config, blocks = checkpoint.model_config, checkpoint.architecture.blocks
    expected = getattr(config.get_text_config(), "num_hidden_layers", None)
    if isinstance(expected, int) and expected > checkpoint.num_blocks:
        raise InputError(
            f"{checkpoint.label}: {checkpoint.folder / CONFIG}: num_hidden_layers is {expected:,}, and the checkpoint's"
            f" files hold {checkpoint.num_blocks:,} blocks ({blocks}.*){prefix_hint(checkpoint.tensor_index, blocks)}"
        )


def _strip_wrappers(
    label: str, architecture: Architecture, tensor_index: Mapping[str, TensorSpec]
) -> tuple[Mapping[str, TensorSpec], list[str]]:
    """The tensor_index without wrappers in its names, and a note where there were any."""

    def is_known(names: Iterable[str]) -> bool:
        return any(architecture.block_of(architecture.model_name(name)) == 0 for name in names)

    def is_exact(names: Iterable[str]) -> bool:
        return any(architecture.block_of(name) == 0 and architecture.model_name(name) == name for name in names)

    found = strip_wrapper_names(tensor_index, is_known, is_exact)
    renamed = [f"{stored} is read as {name}" for name, stored in found.items() if name != stored]
    notes = [f"{label}: a wrapper changed the names of its tensors: {example}" for example in renamed[:1]]
    return {name: tensor_index[stored] for name, stored in found.items()}, notes

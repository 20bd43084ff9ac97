"""One checkpoint: its config, and its tensors under the model's own names."""

from collections.abc import Iterable, Iterator, Mapping, Set
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from regstream.checkpoint.header import TensorSpec
from regstream.checkpoint.layout import left_out, read_layout
from regstream.checkpoint.reader import TensorReader
from regstream.checkpoint.source import LOCAL, Source
from regstream.checkpoint.wrapping import prefixed, unwrapped
from regstream.errors import InputError
from regstream.models.config.build import build_config
from regstream.models.config.config_file import CONFIG, read_config
from regstream.models.config.nested import nested_config
from regstream.models.families import FAMILIES, family_of
from regstream.models.family import Family


class Checkpoint(TensorReader):
    """A folder of safetensors, open for reading; no tensor in it is ever written.

    `tensors` holds what belongs to the family's model, by the model's own parameter names; `ignored` the rest
    (the text tower of a whole CLIP), which `besides` reads. Files may call them otherwise: `stored_name`.
    """

    #: Parameters that are not as in its files, since an adapter changes them.
    changed: Set[str] = frozenset()

    def __init__(
        self,
        label: str,
        folder: Path,
        *,
        config: Mapping[str, Any],
        family: Family,
        source: Source,
        layout: Mapping[str, TensorSpec],
        notes: Iterable[str] = (),
    ) -> None:
        self.folder = folder
        self.config = config
        self.family = family
        self.layout = layout  # by the names in the files
        self.notes = tuple(notes)  # what a person should know of how it is made up
        self._stored = _own_names(family, layout)
        super().__init__(label, {own: layout[name] for own, name in self._stored.items()}, source)
        besides = {name: layout[name] for name in layout.keys() - self._stored.values()}
        self.besides = TensorReader(label, besides, source)

    def config_with(self, **values: object) -> PreTrainedConfig:
        """Its config with other values for some keys, as transformers reads it; raises as `model_config` does."""
        try:
            return build_config(self.family, {**self.config, **values}, self.folder / CONFIG)
        except InputError as error:
            raise InputError(f"{self.label}: {error}") from error

    def override_config(self, **values: object) -> None:
        """Have its config hold other values for some keys."""
        self.config = {**self.config, **values}
        vars(self).pop("model_config", None)

    @cached_property
    def model_config(self) -> PreTrainedConfig:
        """Its config as transformers reads it: keys that the file leaves out are its class's defaults.

        Raises:
            InputError: its class refuses it, or it asks for code of the hub.
        """
        return self.config_with()

    @property
    def num_blocks(self) -> int:
        """How many blocks its files hold tensors of."""
        return len({self.family.block_of(name) for name in self.tensors} - {None})

    @property
    def ignored(self) -> tuple[str, ...]:
        """The names of what does not belong to the model."""
        return tuple(sorted(self.besides.tensors))

    def stored_name(self, name: str) -> str:
        """What the files call a parameter; for one that they do not hold, its own name."""
        return self._stored.get(name, name)

    def carry(self, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """Count tensors in that no model has, by their names in the files; the shapes by the names in `tensors`."""
        by_stored = {stored: own for own, stored in self._stored.items()}
        own_names = {by_stored.get(name, name): name for name in names}
        self._stored |= own_names
        self.tensors = {**self.tensors, **{own: self.layout[name] for own, name in own_names.items()}}
        besides = {name: spec for name, spec in self.besides.tensors.items() if name not in own_names.values()}
        self.besides = TensorReader(self.label, besides, self.source)
        return {own: self.layout[name].shape for own, name in own_names.items()}

    def separate(self, name: str, source: str) -> None:
        """Let a parameter that is tied to another have values of its own: those of the other, where it has none."""
        if name not in self.tensors:
            self.tensors = {**self.tensors, name: self.tensors[source]}

    def lacking(self, names: Iterable[str]) -> set[str]:
        """Which of a model's parameters it does not hold and may do without."""
        optional = tuple(f"{module}." for module in self.family.optional)
        return {name for name in names if name not in self.tensors and name.startswith(optional)}

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold its tensors, in order of their names."""
        parts = self.parts(self.tensors)
        return tuple(sorted({reader.tensors[name].file for reader, names in parts for name in names}))

    @property
    def inputs(self) -> Mapping[str, tuple[Source, Path]]:
        """The files that decide what it is, by what a record calls them, and who answers for them."""
        files = self.files
        shards = {f"shard {i} of {len(files)}, {file.name}": file for i, file in enumerate(files, start=1)}
        return {name: (self.source, file) for name, file in {CONFIG: self.folder / CONFIG, **shards}.items()}

    def parts(self, names: Iterable[str]) -> Iterator[tuple[TensorReader, tuple[str, ...]]]:
        """What is read for some of its tensors: readers, and the names of tensors there."""
        yield self, tuple(names)

    def scratch_bytes(self, names: Iterable[str]) -> int:  # noqa: ARG002
        """The memory that reading some of its tensors takes beside their buffers."""
        return 0

    def kept_bytes(self, names: Iterable[str]) -> int:  # noqa: ARG002
        """The memory that stays taken once some of its tensors were read, for others that read the same."""
        return 0


def open_checkpoint(
    label: str,
    folder: Path,
    source: Source = LOCAL,
    *,
    described: Family | None = None,
    part: Family | None = None,
) -> Checkpoint:
    """Open a checkpoint folder; `label` ("base", "candidate math") goes into every error.

    `described` is a family beside those that are known, `part` the model to be opened inside a larger one; without it
    the architecture tells what there is.

    Raises:
        InputError: config or headers are missing or damaged, or the architecture is not known.
    """
    try:
        config = read_config(folder)
        family = part or family_of(str(config.get("model_type")), described)
        if family is None:
            known = ", ".join(model_type for family in FAMILIES for model_type in family.model_types)
            raise InputError(
                f'{folder}: model_type "{config.get("model_type")}" is not known; known are {known};'
                " an [architecture] table in the manifest describes any other"
            )
        if family.nested_config:
            config = nested_config(family, config, folder / CONFIG)
        layout, notes = _unwrapped(label, family, read_layout(folder, source))
        if left := left_out(folder, source):
            more = f" and {len(left) - 1:,} more" if len(left) > 1 else ""
            notes.append(
                f"{label}: left out: {left[0]}{more}: its index does not name it; libraries may load it instead"
            )
        checkpoint = Checkpoint(label, folder, config=config, family=family, source=source, layout=layout, notes=notes)
    except InputError as error:
        raise InputError(f"{label}: {error}") from error
    _check_blocks(checkpoint)
    return checkpoint


def _check_blocks(checkpoint: Checkpoint) -> None:
    """Refuse a config of more blocks than there are before a model is made of it."""
    expected, blocks = getattr(checkpoint.model_config, "num_hidden_layers", None), checkpoint.family.blocks
    if isinstance(expected, int) and expected > checkpoint.num_blocks:
        raise InputError(
            f"{checkpoint.label}: {checkpoint.folder / CONFIG}: num_hidden_layers is {expected:,}, and the checkpoint's"
            f" files hold {checkpoint.num_blocks:,} blocks ({blocks}.*){prefixed(checkpoint.layout, blocks)}"
        )


def _unwrapped(
    label: str, family: Family, layout: Mapping[str, TensorSpec]
) -> tuple[Mapping[str, TensorSpec], list[str]]:
    """The layout without what wrappers put into its names, and what a person should know of that."""

    def is_known(names: Iterable[str]) -> bool:
        return any(family.block_of(family.own_name(name)) == 0 for name in names)

    found = unwrapped(layout, is_known)
    before = next((stored for name, stored in found.items() if name != stored), None)
    if before is None:
        return layout, []
    name = next(name for name, stored in found.items() if stored == before)
    note = f"{label}: a wrapper left its mark on the names of its tensors: {before} is read as {name}"
    return {name: layout[stored] for name, stored in found.items()}, [note]


def _own_names(family: Family, stored: Mapping[str, object]) -> dict[str, str]:
    """The names in the files of what belongs to the family's model, by the model's own."""
    names: dict[str, str] = {}
    for name in stored:
        own = family.own_name(name)
        if not family.holds(own):
            continue
        if own in names:
            raise InputError(f"{names[own]} and {name} are the same tensor, {own}, of a {family.model_class}")
        names[own] = name
    first = f"{family.blocks}.0."
    if not any(own.startswith(first) for own in names):
        found = f"; found {next(iter(stored))} and others" if stored else "; it holds no tensor at all"
        found = prefixed(stored, family.blocks) or found
        raise InputError(f"no tensor named {first}*, as a {family.name} model has{found}")
    return names

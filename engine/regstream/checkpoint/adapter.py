"""A PEFT LoRA adapter: its file, validated by its header against the model; reads no weights for that.

A delta is `scale · B A`, of factors A (rank, in) and B (out, rank).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from regstream.checkpoint.adapter_config import AdapterConfig, read_adapter_config
from regstream.checkpoint.checkpoint import Checkpoint
from regstream.checkpoint.header import FLOAT_DTYPES, TensorSpec, read_header
from regstream.checkpoint.reader import TensorReader
from regstream.checkpoint.source import LOCAL, Source
from regstream.errors import InputError, label_boundary
from regstream.models.config.config_file import ADAPTER_CONFIG
from regstream.units import format_names

ADAPTER_WEIGHTS = "adapter_model.safetensors"
_PICKLED = "adapter_model.bin"
_PREFIX = "base_model.model."
_DEFAULT = ".default.weight"  # as in a state dict saved by hand; peft reads it like its own files
_A, _B = ".lora_A.weight", ".lora_B.weight"
_BASE_LAYER = ".base_layer.weight"  # the whole weight that a delta is added to, which peft saves for some modules
#: Parts of peft's names for anything but a plain factor or a whole weight.
_OTHER_KINDS = {
    ".lora_embedding_": "a factor of an embedding",
    ".lora_magnitude_vector": "a magnitude of DoRA",
    ".lora_B.bias": "a bias of a factor",
    ".lora_": "a factor of another kind than LoRA's own",
    ".base_layer.": "a tuned parameter beside factors",
    ".trainable_tokens_": "a row of single tokens",
}


@dataclass(frozen=True, kw_only=True)
class LoraDelta:
    """What is added to one weight; `a` and `b` name the factors in the file. `transposed`: the weight is (in, out)."""

    a: str
    b: str
    rank: int
    scale: float
    transposed: bool


class Adapter(TensorReader):
    """An adapter's file, open for reading; its tensors by their names in the file.

    `deltas` and `replacements` (names in the file) are keyed by the model's parameters. `ignored_names` belong to other
    models. `duplicates` are second copies of a module that was saved whole.
    """

    def __init__(self, label: str, folder: Path, source: Source, model: Checkpoint) -> None:
        self.folder = folder
        self.config = read_adapter_config(folder)
        super().__init__(label, _read_tensors(folder, source), source)
        with label_boundary(str(self.file)):
            names = _AdapterNames(self.config, self.tensors, model)
        if names.unknown:
            problem = f"holds tensors that {model.folder}, the model of the adapter, has no weight for"
            advice = _advice(names.unknown[0], model)
            raise InputError(f"{self.file}: {problem}: {format_names(names.unknown, 3)}{advice}")
        self.ignored_names = tuple(sorted(names.ignored_names))
        self.duplicates = tuple(sorted(names.duplicates))
        self.replacements: Mapping[str, str] = names.replacements
        self.notes = tuple(_headless_names(names.adapted, model))
        self.deltas = {name: self._delta(name, module, model) for name, module in names.adapted.items()}

    @property
    def file(self) -> Path:
        """The file of its weights."""
        return self.folder / ADAPTER_WEIGHTS

    @property
    def inputs(self) -> Mapping[str, tuple[Source, Path]]:
        """Its files, with their source, by their names in records."""
        return {name: (self.source, self.folder / name) for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)}

    def stored_names(self, parameters: Iterable[str]) -> Iterator[str]:
        """The adapter's tensors that these parameters of the model need."""
        for name in parameters:
            if name in self.replacements:
                yield self.replacements[name]
            if name in self.deltas:
                yield from (self.deltas[name].a, self.deltas[name].b)

    def _delta(self, name: str, module: str, model: Checkpoint) -> LoraDelta:
        a, b = _PREFIX + module + _A, _PREFIX + module + _B
        for factor, other in ((a, b), (b, a)):
            if factor not in self.tensors:
                raise InputError(f"{self.file}: holds {other}, and no {factor}")
        rank, transposed = self.config.rank(module), model.architecture.is_transposed(name)
        weight = self.tensors[self.replacements[name]] if name in self.replacements else model.tensors[name]
        expected = weight.shape[::-1] if transposed else weight.shape
        a_shape, b_shape = self.tensors[a].shape, self.tensors[b].shape
        if len(expected) != 2 or (a_shape, b_shape) != ((rank, expected[1]), (expected[0], rank)):
            raise InputError(
                f"{self.file}: {a} is {list(a_shape)}, {_B.removeprefix('.')} is {list(b_shape)}; expected [rank, in]"
                f" and [out, rank], of rank {rank} in {ADAPTER_CONFIG} and of {name}, [out, in] = {list(expected)}"
            )
        for factor in (a, b):
            if self.tensors[factor].dtype not in FLOAT_DTYPES:
                raise InputError(f"{self.file}: {factor} is {self.tensors[factor].dtype}; expected floating point")
        return LoraDelta(a=a, b=b, rank=rank, scale=self.config.scale(module), transposed=transposed)


class _AdapterNames:
    """The names in an adapter's file, sorted by their use; modules by their names in the model that was tuned."""

    def __init__(self, config: AdapterConfig, stored: Collection[str], model: Checkpoint) -> None:
        self.adapted: dict[str, str] = {}
        self.replacements: dict[str, str] = {}
        self.ignored_names: list[str] = []
        self.unknown: list[str] = []
        self.duplicates = [name for name in stored if _plain(name) != name and _plain(name) in stored]
        for name in (name for name in stored if name not in self.duplicates):
            bare = name.removeprefix(_PREFIX)
            module = bare.removesuffix(_A).removesuffix(_B)
            factored = module != bare
            parameter = f"{module.removesuffix(_BASE_LAYER)}.weight" if factored or bare.endswith(_BASE_LAYER) else bare
            own = model.architecture.model_name(parameter)
            if own in model.tensors and bare != name:
                known, entry = (self.adapted, module) if factored else (self.replacements, name)
                if (first := known.setdefault(own, entry)) != entry:
                    raise InputError(f"{first} and {entry} are both for {own}; remove one")
            elif parameter in model.other_tensors.tensors or (
                config.saves(parameter) and not model.architecture.has_parameter(own)
            ):
                self.ignored_names.append(name)  # of a whole checkpoint: another tower, a task's own head
            else:
                self.unknown.append(name)
        for own in self.adapted.keys() & self.replacements.keys():
            if not self.replacements[own].endswith(_BASE_LAYER):
                both = f"{self.replacements[own]} and the factors of {self.adapted[own]}"
                raise InputError(f"{both} are both for {own}; remove one")


def _headless_names(adapted: Mapping[str, str], model: Checkpoint) -> Iterator[str]:
    """A note where the names of modules are those of the model without its head, which peft does not match."""
    for own, module in adapted.items() if model.architecture.is_causal_lm else ():
        if f"{module}.weight" != own:
            yield f"names are those of a model without a head: {module} is read as {own.removesuffix('.weight')}"
            return


def _plain(name: str) -> str:
    """peft's name of a whole weight without its wrapper: it may save both, where embeddings were resized."""
    return name.replace(".modules_to_save.", ".").replace(".original_module.", ".")


def _read_tensors(folder: Path, source: Source) -> dict[str, TensorSpec]:
    names = source.list_files(folder)
    if ADAPTER_WEIGHTS not in names:
        pickled = f"only {_PICKLED}, which is pickled and is not read; save it as safetensors"
        raise InputError(f"{folder}: expected {ADAPTER_WEIGHTS}, found {pickled if _PICKLED in names else 'none'}")
    stored = read_header(folder / ADAPTER_WEIGHTS, source)
    tensors: dict[str, TensorSpec] = {}
    for name, spec in stored.items():
        plain = f"{name.removesuffix(_DEFAULT)}.weight" if name.endswith(_DEFAULT) else name
        if plain in tensors or (plain != name and plain in stored):
            raise InputError(f"{folder / ADAPTER_WEIGHTS}: holds {plain} twice, once as {name}; remove one")
        tensors[plain] = spec
    for name in tensors:
        if name.endswith((_A, _B, _BASE_LAYER)):
            continue
        for kind, title in _OTHER_KINDS.items():
            if kind in name:
                raise InputError(f"{folder / ADAPTER_WEIGHTS}: {name} is {title}, which is not applied")
    return tensors


def open_adapter(label: str, folder: Path, model: Checkpoint, source: Source = LOCAL) -> Adapter:
    """Open the folder of an adapter for a model; `label` goes into every error.

    Raises:
        InputError: the adapter is of an unsupported kind, or does not fit the model.
    """
    with label_boundary(label):
        return Adapter(label, folder, source, model)


def _advice(name: str, model: Checkpoint) -> str:
    """What to do about a name that matches no weight, where the cause is known."""
    bare = name.removeprefix(_PREFIX)
    module = bare.removesuffix(_A).removesuffix(_B).removesuffix(_BASE_LAYER)
    own = model.architecture.model_name(f"{module}.weight")
    if model.architecture.part_of(own) == "head" and bare != name:
        return "; a head that is tied to the embeddings has none of its own: merge the adapter into its model first"
    for plain in (module.replace("_orig_mod.", "").split("base_model.model.")[-1], f"model.{module}"):
        if model.architecture.model_name(f"{plain}.weight") in model.tensors:
            expected = f"{_PREFIX}{plain}{bare.removeprefix(module)}"
            return f"; peft does not find it either; if {expected} is meant, rename what the file holds"
    return ""

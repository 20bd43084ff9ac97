"""A PEFT LoRA adapter: its file, held by its header against the model that it is put on; no weight is read for that.

A product is `scale · B A`, of factors A (rank, in) and B (out, rank).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from regstream.checkpoint.adapter_config import AdapterConfig, read_adapter_config
from regstream.checkpoint.checkpoint import Checkpoint
from regstream.checkpoint.header import FLOATS, TensorSpec, read_header
from regstream.checkpoint.reader import TensorReader
from regstream.checkpoint.source import LOCAL, Source
from regstream.errors import InputError
from regstream.models.config.config_file import ADAPTER_CONFIG

ADAPTER_WEIGHTS = "adapter_model.safetensors"
_PICKLED = "adapter_model.bin"
_PREFIX = "base_model.model."
_DEFAULT = ".default.weight"  # as a state dict has it that was saved by hand; peft reads it as what it writes itself
_A, _B = ".lora_A.weight", ".lora_B.weight"
_BELOW = ".base_layer.weight"  # the whole weight that a product is added to, saved beside it for some modules
#: What peft calls anything but a plain factor or a whole weight.
_OTHER_KINDS = {
    ".lora_embedding_": "a factor of an embedding",
    ".lora_magnitude_vector": "a magnitude of DoRA",
    ".lora_B.bias": "a bias of a factor",
    ".lora_": "a factor of another kind than LoRA's own",
    ".base_layer.": "a tuned parameter beside factors",
    ".trainable_tokens_": "a row of single tokens",
}
_MOST_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Product:
    """What is added to one weight; the factors by their names in the file. `transposed`: the weight is (in, out)."""

    a: str
    b: str
    rank: int
    scale: float
    transposed: bool


class Adapter(TensorReader):
    """An adapter's file, open for reading, its tensors by the names in it.

    `products` and `replaced` (names in the file) are by the model's parameters; `ignored` is what is of other models,
    `copies` what the file holds again of a module that was saved whole.
    """

    def __init__(self, label: str, folder: Path, source: Source, model: Checkpoint) -> None:
        self.folder = folder
        self.config = read_adapter_config(folder)
        super().__init__(label, _read_tensors(folder, source), source)
        found = _Sorted(self.config, self.tensors, model)
        if found.unknown:
            raise InputError(
                f"{self.file}: {_listed(found.unknown)} no weight of {model.folder}, which it is put on"
                f"{_advice(found.unknown[0], model)}"
            )
        self.ignored = tuple(sorted(found.ignored))
        self.copies = tuple(sorted(found.copies))
        self.replaced: Mapping[str, str] = found.replaced
        self.notes = tuple(_of_names(found.adapted, model))
        self.products = {name: self._product(name, module, model) for name, module in found.adapted.items()}

    @property
    def file(self) -> Path:
        """Where its weights are."""
        return self.folder / ADAPTER_WEIGHTS

    @property
    def inputs(self) -> Mapping[str, tuple[Source, Path]]:
        """Its files by what a record calls them, and who answers for them."""
        return {name: (self.source, self.folder / name) for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)}

    def stored_names(self, parameters: Iterable[str]) -> Iterator[str]:
        """Its tensors that some parameters of the model are made of."""
        for name in parameters:
            if name in self.replaced:
                yield self.replaced[name]
            if name in self.products:
                yield from (self.products[name].a, self.products[name].b)

    def _product(self, name: str, module: str, model: Checkpoint) -> Product:
        a, b = _PREFIX + module + _A, _PREFIX + module + _B
        for factor, other in ((a, b), (b, a)):
            if factor not in self.tensors:
                raise InputError(f"{self.file}: holds {other}, and no {factor}")
        transposed = model.family.is_transposed(name)
        product = Product(
            a=a, b=b, rank=self.config.rank(module), scale=self.config.scale(module), transposed=transposed
        )
        self._check(product, name, self.tensors[self.replaced[name]] if name in self.replaced else model.tensors[name])
        return product

    def _check(self, product: Product, name: str, weight: TensorSpec) -> None:
        rank, a, b = product.rank, self.tensors[product.a], self.tensors[product.b]
        expected = weight.shape[::-1] if product.transposed else weight.shape
        if len(expected) != 2 or (a.shape, b.shape) != ((rank, expected[1]), (expected[0], rank)):
            raise InputError(
                f"{self.file}: {product.a} and {_B.removeprefix('.')} have shapes {list(a.shape)} and"
                f" {list(b.shape)}; rank {rank} of {ADAPTER_CONFIG} and {name}, (out, in) {list(expected)}, ask for"
                f" [{rank}, in] and [out, {rank}]"
            )
        for factor in (product.a, product.b):
            if self.tensors[factor].dtype not in FLOATS:
                raise InputError(f"{self.file}: {factor} is {self.tensors[factor].dtype}; expected floating point")


class _Sorted:
    """The names in an adapter's file, by what becomes of them; modules are called as in the model that was tuned."""

    def __init__(self, config: AdapterConfig, stored: Collection[str], model: Checkpoint) -> None:
        self.adapted: dict[str, str] = {}
        self.replaced: dict[str, str] = {}
        self.ignored: list[str] = []
        self.unknown: list[str] = []
        self.copies = [name for name in stored if _plain(name) != name and _plain(name) in stored]
        for name in (name for name in stored if name not in self.copies):
            bare = name.removeprefix(_PREFIX)
            module = bare.removesuffix(_A).removesuffix(_B)
            factored = module != bare
            parameter = f"{module.removesuffix(_BELOW)}.weight" if factored or bare.endswith(_BELOW) else bare
            own = model.family.own_name(parameter)
            if own in model.tensors and bare != name:
                _claim(self.adapted if factored else self.replaced, own, module if factored else name)
            elif parameter in model.besides.tensors or (config.saves(parameter) and not model.family.holds(own)):
                self.ignored.append(name)  # as of a whole checkpoint: another tower, a task's own head
            else:
                self.unknown.append(name)
        for own in self.adapted.keys() & self.replaced.keys():
            if not self.replaced[own].endswith(_BELOW):
                raise InputError(f"{self.replaced[own]} and the factors of {self.adapted[own]} are both for {own}")


def _of_names(adapted: Mapping[str, str], model: Checkpoint) -> Iterator[str]:
    """What a person should know where modules are called as in the model without its head; peft finds none so."""
    for own, module in adapted.items() if model.family.continues_text else ():
        if f"{module}.weight" != own:
            yield f"names are those of a model without a head: {module} is read as {own.removesuffix('.weight')}"
            return


def _plain(name: str) -> str:
    """What peft calls a whole weight, of which it may write what it wraps besides, where embeddings were resized."""
    return name.replace(".modules_to_save.", ".").replace(".original_module.", ".")


def _claim(kind: dict[str, str], own: str, name: str) -> None:
    first = kind.setdefault(own, name)
    if first != name:
        raise InputError(f"{first} and {name} are both for {own}")


def _read_tensors(folder: Path, source: Source) -> dict[str, TensorSpec]:
    names = source.names(folder)
    if ADAPTER_WEIGHTS not in names:
        pickled = f"only {_PICKLED}, which is pickled and is not read; save it as safetensors"
        raise InputError(f"{folder}: expected {ADAPTER_WEIGHTS}, found {pickled if _PICKLED in names else 'none'}")
    stored = read_header(folder / ADAPTER_WEIGHTS, source)
    tensors: dict[str, TensorSpec] = {}
    for name, spec in stored.items():
        plain = f"{name.removesuffix(_DEFAULT)}.weight" if name.endswith(_DEFAULT) else name
        if plain in tensors or (plain != name and plain in stored):
            raise InputError(f"{folder / ADAPTER_WEIGHTS}: holds {plain} twice, once as {name}")
        tensors[plain] = spec
    for name in tensors:
        if name.endswith((_A, _B, _BELOW)):
            continue
        for kind, title in _OTHER_KINDS.items():
            if kind in name:
                raise InputError(f"{folder / ADAPTER_WEIGHTS}: {name} is {title}, which is not applied")
    return tensors


def open_adapter(label: str, folder: Path, model: Checkpoint, source: Source = LOCAL) -> Adapter:
    """Open an adapter's folder for a model that it is put on; `label` goes into every error.

    Raises:
        InputError: it is of a kind that is not applied, or does not fit the model.
    """
    try:
        return Adapter(label, folder, source, model)
    except InputError as error:
        raise InputError(f"{label}: {error}") from error


def _advice(name: str, model: Checkpoint) -> str:
    """What may be wrong with a name that matches no weight, and what to do."""
    bare = name.removeprefix(_PREFIX)
    module = bare.removesuffix(_A).removesuffix(_B).removesuffix(_BELOW)
    own = model.family.own_name(f"{module}.weight")
    if model.family.part_of(own) == "head" and bare != name:
        return "; a head that is tied to the embeddings has none of its own: merge the adapter into its model first"
    for plain in (module.replace("_orig_mod.", "").split("base_model.model.")[-1], f"model.{module}"):
        if model.family.own_name(f"{plain}.weight") in model.tensors:
            expected = f"{_PREFIX}{plain}{bare.removeprefix(module)}"
            return f"; peft does not find it either; if {expected} is meant, rename what the file holds"
    return ""


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
    return f"{', '.join(names[:_MOST_NAMED])}{more} {'match' if len(names) > 1 else 'matches'}"

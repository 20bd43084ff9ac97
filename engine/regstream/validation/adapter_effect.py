"""What an adapter does to the model that it is put on, where that is less than its config says: named, not refused."""

from collections.abc import Iterable, Iterator, Sequence

import torch

from regstream.checkpoint.adapted import AdaptedCheckpoint
from regstream.checkpoint.adapter import Adapter
from regstream.checkpoint.reader import TensorReader
from regstream.checkpoint.source import LOCAL
from regstream.models.layered_model import LayeredModel
from regstream.validation.grouping import grouped


def adapter_notes(candidate: AdaptedCheckpoint, model: LayeredModel) -> Iterator[str]:
    """What a person should know of a candidate's adapter; a line each."""
    adapter = candidate.adapter
    if adapter.ignored_names:
        yield (
            f"{candidate.label}: left out of its adapter: {grouped(adapter.ignored_names)}: outside"
            f" {type(model.model).__name__}: a task's head, or another model's part"
        )
    if adapter.duplicates:
        yield (
            f"{candidate.label}: left out of its adapter: {grouped(adapter.duplicates)}: of a module that was saved"
            " whole, peft reads the plain name"
        )
    if nothing := _changes_nothing(adapter):
        yield f"{candidate.label}: its adapter changes nothing: {nothing}; was its training lost in saving?"
        return
    without = [name for name, product in adapter.deltas.items() if product.scale == 0]
    if without:
        yield f"{candidate.label}: its adapter changes nothing in {grouped(without)}: alpha is 0 there"
    if missing := _missing(adapter, candidate, model):
        yield (
            f"{candidate.label}: its adapter holds no factors for {grouped(missing)}, which its target_modules name;"
            " these stay as in the model"
        )


def _changes_nothing(adapter: Adapter) -> str | None:
    if adapter.replacements:
        return None
    if not adapter.deltas:
        return "its file holds no factors for the model"
    if all(product.scale == 0 for product in adapter.deltas.values()):
        return "alpha is 0"
    if adapter.source is not LOCAL:  # perhaps not there yet, and what is told must not depend on that
        return None
    reader = TensorReader(adapter.label, adapter.tensors, adapter.source)  # what is read here is no part of a merge
    with reader.keep_open():
        for title in ("b", "a"):
            factors = (getattr(product, title) for product in adapter.deltas.values())
            if all(_is_zero(reader, factor) for factor in factors):
                return f"all factors {title.upper()} are zero"
    return None


def _is_zero(reader: TensorReader, factor: str) -> bool:
    values = torch.empty(reader.tensors[factor].shape, dtype=torch.float32)
    reader.read({factor: values})
    return not values.any()


def _missing(adapter: Adapter, candidate: AdaptedCheckpoint, model: LayeredModel) -> list[str]:
    """Weights that training was to change, by its config, and that the file has nothing for."""
    changed = adapter.deltas.keys() | adapter.replacements.keys()
    config = adapter.config
    linears = [name for name, shape in model.shapes.items() if len(shape) == 2 and name.endswith(".weight")]
    if not isinstance(config.target_modules, list) or config.exclude_modules:
        wanted = _like(linears, adapter.deltas.keys(), model)
    else:
        targets = [str(target) for target in config.target_modules]
        wanted = [
            name
            for name in linears
            if _is_named(name, targets) or _is_named(candidate.model.stored_name(name), targets)
        ]
    layers = config.layers_to_transform
    chosen = {layers} if isinstance(layers, int) else set(layers) if isinstance(layers, list) else None
    return [
        name for name in wanted if name not in changed and (chosen is None or model.family.block_of(name) in chosen)
    ]


def _is_named(weight: str, targets: Sequence[str]) -> bool:
    """As peft has it: by the whole name of a module, or its end."""
    module = weight.removesuffix(".weight")
    return any(module == target or module.endswith(f".{target}") for target in targets)


def _like(linears: Sequence[str], adapted: Iterable[str], model: LayeredModel) -> list[str]:
    """The linears that are in some block what an adapted one is in another."""

    def local(name: str) -> str | None:
        block = model.family.block_of(name)
        return None if block is None else name.removeprefix(model.family.block_prefix(block))

    kinds = {local(name) for name in adapted} - {None}
    return [name for name in linears if local(name) in kinds]

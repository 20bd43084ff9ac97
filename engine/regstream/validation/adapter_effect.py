"""Warns of adapters that change less of their model than their config says, or nothing."""

from collections.abc import Iterator

import torch

from regstream.checkpoint.adapted_checkpoint import AdaptedCheckpoint
from regstream.checkpoint.adapter import Adapter
from regstream.checkpoint.reader import TensorReader
from regstream.checkpoint.source import LOCAL
from regstream.models.architecture.architecture import Architecture
from regstream.models.layered_model import LayeredModel
from regstream.validation.summaries import summarize_names


def adapter_warnings(candidate: AdaptedCheckpoint, model: LayeredModel) -> Iterator[str]:
    """Yield one warning for each kind of tensor that the adapter has without effect, or lacks."""
    adapter = candidate.adapter
    if adapter.ignored_names:
        yield (
            f"{candidate.label}: left out of its adapter: {summarize_names(adapter.ignored_names)}: outside"
            f" {type(model.model).__name__}: a task head, or part of another model"
        )
    if adapter.duplicates:
        yield (
            f"{candidate.label}: left out of its adapter: {summarize_names(adapter.duplicates)}: of a module"
            " that was saved whole, peft reads only the plain name"
        )
    if reason := _no_effect_reason(adapter):
        yield f"{candidate.label}: its adapter changes nothing: {reason}; was its training lost in saving?"
        return
    if zero_alpha := [name for name, product in adapter.deltas.items() if product.scale == 0]:
        yield f"{candidate.label}: its adapter changes nothing in {summarize_names(zero_alpha)}: alpha is 0 there"
    if missing := _missing_targets(adapter, candidate, model):
        yield (
            f"{candidate.label}: its adapter holds no factors for {summarize_names(missing)}, which its"
            " target_modules name; these stay as in the model"
        )


def _no_effect_reason(adapter: Adapter) -> str | None:
    if adapter.replacements:
        return None
    if not adapter.deltas:
        return "its file holds no factors for the model"
    if all(product.scale == 0 for product in adapter.deltas.values()):
        return "alpha is 0"
    if adapter.source is not LOCAL:  # warnings must not depend on which files are in the cache
        return None
    reader = TensorReader(adapter.label, adapter.tensors, adapter.source)  # does not count as read for the merge
    with reader.keep_open():
        for name in ("b", "a"):
            factors = (getattr(product, name) for product in adapter.deltas.values())
            if all(_is_zero(reader, factor) for factor in factors):
                return f"all factors {name.upper()} are zero"
    return None


def _is_zero(reader: TensorReader, factor: str) -> bool:
    values = torch.empty(reader.tensors[factor].shape, dtype=torch.float32)
    reader.read({factor: values})
    return not values.any()


def _missing_targets(adapter: Adapter, candidate: AdaptedCheckpoint, model: LayeredModel) -> list[str]:
    """Weights that the adapter's config targets and that its file has no factors for."""
    config, architecture = adapter.config, model.architecture
    linears = [name for name, shape in model.shapes.items() if len(shape) == 2 and name.endswith(".weight")]
    if isinstance(config.target_modules, list) and not config.exclude_modules:
        # As peft matches: the whole name of a module, or its end.
        suffixes = tuple(f".{target}.weight" for target in config.target_modules)
        targets = [
            name
            for name in linears
            if f".{name}".endswith(suffixes) or f".{candidate.model.stored_name(name)}".endswith(suffixes)
        ]
    else:  # a pattern: the linears that some block has adapted
        adapted = {_name_in_block(name, architecture) for name in adapter.deltas} - {None}
        targets = [name for name in linears if _name_in_block(name, architecture) in adapted]
    layers = config.layers_to_transform
    blocks = {layers} if isinstance(layers, int) else set(layers) if isinstance(layers, list) else None
    changed = adapter.deltas.keys() | adapter.replacements.keys()
    return [
        name for name in targets if name not in changed and (blocks is None or architecture.block_of(name) in blocks)
    ]


def _name_in_block(name: str, architecture: Architecture) -> str | None:
    block = architecture.block_of(name)
    return None if block is None else name.removeprefix(architecture.block_prefix(block))

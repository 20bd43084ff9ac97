"""RegMean++ as it is usually written: everything in memory, a Gram matrix a linear, an explicit inverse.

What the engine is compared with, in memory and in time: `python -m bench.baseline MANIFEST OUTPUT`, on the manifest's
device. Written to be plain, not to be slow: candidates are summed as they come, nothing is computed that the method
does not ask for.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, CLIPVisionModel

from regstream.checkpoint.checkpoint import open_checkpoint
from regstream.data.loading import CalibrationSet, load_calibration
from regstream.manifest.read_manifest import read_manifest

#: Batch by batch what enters a block, and the arguments beside it, which all blocks share.
State = list[tuple[Tensor, tuple[Any, ...], Mapping[str, Any]]]


class _Caught(Exception):
    """Ends a forward pass at the first block."""


@torch.no_grad()
def merge(manifest_path: Path, output: Path) -> None:
    """Merge what a manifest names and save the result."""
    manifest = read_manifest(manifest_path)
    device = torch.device(manifest.resources.device or "cpu")
    assert manifest.merge.base is not None
    assert manifest.merge.base.folder is not None
    base = open_checkpoint("base", manifest.merge.base.folder)
    model_class: Any = CLIPVisionModel if base.architecture.modality == "pixel_values" else AutoModelForCausalLM
    merged = _load(model_class, manifest.merge.base.folder, device)
    path = base.architecture.blocks
    blocks: Any = merged.get_submodule(path)
    widest = max(max(weight.shape) for weight in blocks[0].parameters() if weight.dim() == 2)
    candidates, sets = [], []
    for candidate in manifest.candidates:
        assert candidate.model is not None
        assert candidate.model.folder is not None
        assert candidate.calibration is not None
        candidates.append(_load(model_class, candidate.model.folder, device))
        sets.append(
            load_calibration(
                candidate.calibration, architecture=base.architecture, config=base.model_config, base=base.folder,
                seed=manifest.merge.seed, max_features=widest, warn=print,
            )
        )  # fmt: skip
    for name, parameter in merged.named_parameters():
        part = base.architecture.part_of(name)
        if part is not None and base.architecture.defaults[part] == "average":
            parameter.copy_(_mean(candidates, name))
    states = [_caught(merged, blocks[0], rows) for rows in sets]
    for index, block in enumerate(blocks):
        own = [candidate.get_submodule(path)[index] for candidate in candidates]
        _merge_block(block, own, states, manifest.merge.options.model_dump()["alpha"])
        if block is blocks[-1]:
            break
        for state in states:
            for batch, (hidden, args, kwargs) in enumerate(state):
                state[batch] = (_first(block(hidden, *args, **kwargs)), args, kwargs)
    merged.to("cpu").save_pretrained(output)


def _load(model_class: Any, folder: Path, device: torch.device) -> Any:
    model = model_class.from_pretrained(folder, dtype="auto", local_files_only=True).train(False)
    model.config.use_cache = False
    return model.to(device)


def _caught(model: Any, block: nn.Module, rows: CalibrationSet) -> State:
    """What enters the first block, batch by batch, with the arguments that all blocks get."""
    caught: State = []

    def catch(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
        caught.append((args[0], args[1:], kwargs))
        raise _Caught

    handle = block.register_forward_pre_hook(catch, with_kwargs=True)
    for index in range(len(rows.batches)):
        try:
            model(**rows.inputs(index, dtype=model.dtype, device=model.device))
        except _Caught:
            continue
    handle.remove()
    return caught


def _merge_block(block: nn.Module, own: list[nn.Module], states: list[State], alpha: float) -> None:
    linears = [name for name, module in block.named_modules() if isinstance(module, nn.Linear)]
    left: dict[str, Tensor] = {}
    right: dict[str, Tensor] = {}
    for candidate, state in zip(own, states, strict=True):
        for name, gram_II in _grams(candidate, linears, state).items():
            scaled_II = alpha * gram_II + (1 - alpha) * torch.diag(gram_II.diagonal())
            weighted = scaled_II @ candidate.get_parameter(f"{name}.weight").float().T
            left[name] = left[name] + scaled_II if name in left else scaled_II
            right[name] = right[name] + weighted if name in right else weighted
    regressed = {f"{name}.weight" for name in linears}
    for name, parameter in block.named_parameters():
        if name in regressed:
            linear = name.removesuffix(".weight")
            parameter.copy_((torch.inverse(left.pop(linear)) @ right.pop(linear)).T)
        else:
            parameter.copy_(_mean(own, name))


def _mean(modules: list[Any], name: str) -> Tensor:
    return torch.stack([module.get_parameter(name).float() for module in modules]).mean(0)


def _grams(block: nn.Module, linears: list[str], state: State) -> dict[str, Tensor]:
    """A candidate's Gram matrix of each linear, float32, divided by its tokens."""
    grams: dict[str, Tensor] = {}
    handles = []
    for name in linears:

        def hook(_: nn.Module, args: tuple[Tensor, ...], name: str = name) -> None:
            x_TI = args[0].flatten(0, -2).float()
            product_II = x_TI.T @ x_TI
            grams[name] = grams[name] + product_II if name in grams else product_II

        handles.append(block.get_submodule(name).register_forward_pre_hook(hook))
    for hidden, args, kwargs in state:
        block(hidden, *args, **kwargs)
    for handle in handles:
        handle.remove()
    num_tokens = sum(hidden.shape[0] * hidden.shape[1] for hidden, _, _ in state)
    return {name: gram_II / num_tokens for name, gram_II in grams.items()}


def _first(output: Any) -> Tensor:
    result: Tensor = output if isinstance(output, Tensor) else output[0]
    return result


if __name__ == "__main__":
    merge(Path(sys.argv[1]), Path(sys.argv[2]))

"""Tensors that files hold joined, such as queries, keys and values, or matrices of experts: read piece by piece."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from regstream.checkpoint.header import TensorSpec, WholeTensor
from regstream.errors import InputError
from regstream.models.architecture.architecture import Architecture
from regstream.models.architecture.fused_weight import FusedWeight

#: What libraries call the values and the scales of weights in MXFP4.
_MXFP4 = ("_blocks", "_scales")


def split_joined(
    architecture: Architecture, tensor_index: Mapping[str, TensorSpec]
) -> tuple[dict[str, TensorSpec], list[str]]:
    """The index with the pieces of joined tensors in their place, by the model's names; and the names of those tensors
    that the result holds apart.

    Pieces are consecutive rows, as many each, so that they are read where they lie.

    Raises:
        InputError: a tensor cannot be divided, or is quantized.
    """
    split: dict[str, TensorSpec] = {}
    joined: list[str] = []
    for name, spec in tensor_index.items():
        fused = architecture.fused_weights.get(architecture.model_name(name))
        if fused is not None:
            _check_shape(name, spec, fused)
            whole = WholeTensor(name=name, shape=spec.shape)
            split |= _pieces(replace(spec, whole=whole), fused.pieces, fused.piece_shape)
            continue
        _refuse_mxfp4(architecture, name, spec)
        pieces = architecture.pieces(name)
        if len(pieces) < 2:
            split[name] = spec
            continue
        if not spec.shape or spec.shape[0] % len(pieces):
            raise InputError(
                f"{spec.file}: {name} has shape {list(spec.shape)}, which is not {len(pieces)} equal pieces"
            )
        joined.append(name)
        split |= _pieces(spec, pieces, (spec.shape[0] // len(pieces), *spec.shape[1:]))
    return split, joined


def _check_shape(name: str, spec: TensorSpec, fused: FusedWeight) -> None:
    if spec.shape == fused.shape:
        return
    shapes = f"{spec.file}: {name} has shape {list(spec.shape)}, expected {list(fused.shape)}"
    if spec.shape == (*fused.shape[:-2], fused.shape[-1], fused.shape[-2]):
        raise InputError(
            f"{shapes}: the file holds the matrices of experts transposed; where transformers loads it, save the model"
            " again with save_pretrained, and otherwise swap the last two axes of such tensors"
        )
    num_experts = spec.shape[0] * fused.num_experts // fused.shape[0] if spec.shape else 0
    if len(spec.shape) == len(fused.shape) and spec.shape[1:] == fused.shape[1:]:
        raise InputError(
            f"{shapes}: it holds {num_experts} experts, and the base's config.json says {fused.num_experts}; only"
            " models with as many experts can be merged"
        )
    raise InputError(shapes)


def _pieces(spec: TensorSpec, names: Sequence[str], shape: tuple[int, ...]) -> dict[str, TensorSpec]:
    """Consecutive parts of a tensor, of one shape."""
    size = spec.num_bytes // len(names)
    starts = [spec.begin + index * size for index in range(len(names))]
    return {
        name: replace(spec, shape=shape, begin=start, end=start + size)
        for name, start in zip(names, starts, strict=True)
    }


def _refuse_mxfp4(architecture: Architecture, name: str, spec: TensorSpec) -> None:
    own = architecture.model_name(name)
    for ending in _MXFP4:
        if (
            own.endswith(ending)
            and architecture.has_parameter(own)
            and own.removesuffix(ending) in architecture.fused_weights
        ):
            raise InputError(
                f"{spec.file}: {name} is quantized in MXFP4, of which no mean can be taken; load the model with"
                " transformers and quantization_config=Mxfp4Config(dequantize=True), and save it in bfloat16"
            )

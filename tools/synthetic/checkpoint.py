"""Checkpoints of any known shape with random weights of realistic scale, written a tensor at a time.

So that anyone can try the engine at full width without a download: memory stays at one panel of one tensor.
"""

import argparse
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regstream.models.config.build import build_config
from regstream.models.derivation.derive import derive_architecture
from regstream.models.layered_model import LayeredModel
from regstream.storage.shards import encode_header, shard_bytes, write_shard
from synthetic.shapes import SHAPES

_PANEL = 4 << 20
_STD = 0.02  # of linears and embeddings, as the models' own initializer_range


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the checkpoint that the command line describes."""
    parser = argparse.ArgumentParser(prog="tools/make_checkpoint", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=sorted(SHAPES), required=True)
    parser.add_argument("--blocks", type=int, help="fewer or more blocks than the published model has")
    parser.add_argument("--vocabulary", type=int, help="another number of rows than the published model has")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    parser.add_argument("--candidate", type=int, help="number of a fine-tune of that seed: its weights, a bit off")
    parser.add_argument("--spread", type=float, default=0.05, help="how far off, relative to a tensor's own scale")
    parser.add_argument("--link", type=Path, help="hard-link the shards of this checkpoint instead of writing any")
    parser.add_argument("--hollow", action="store_true", help="headers and sizes only: files of holes, to plan with")
    _make(parser.parse_args(arguments))


def _make(arguments: argparse.Namespace) -> None:
    config = dict(SHAPES[arguments.shape])
    config["num_hidden_layers"] = arguments.blocks or config["num_hidden_layers"]
    if arguments.vocabulary:
        config["vocab_size"] = arguments.vocabulary
    config["dtype"] = arguments.dtype
    arguments.folder.mkdir(parents=True)
    if arguments.link:
        for path in sorted(arguments.link.glob("model*")):
            os.link(path, arguments.folder / path.name)
    else:
        _write(arguments, config)
    (arguments.folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def _write(arguments: argparse.Namespace, config: dict[str, Any]) -> None:
    """One shard for what no block holds, one a block, and the index."""
    dtype: torch.dtype = getattr(torch, arguments.dtype)
    config_file = Path("config.json")
    architecture = derive_architecture(config, config_file)
    model = LayeredModel(architecture, build_config(config, config_file), dtype=dtype, device=torch.device("cpu"))
    parts: dict[int | None, dict[str, tuple[int, ...]]] = {}
    for name, shape in model.shapes.items():
        parts.setdefault(architecture.block_of(name), {})[name] = shape
    weight_map: dict[str, str] = {}
    for index, (block, shapes) in enumerate(parts.items(), start=1):
        file = f"model-{index:05d}-of-{len(parts):05d}.safetensors"
        weight_map |= dict.fromkeys(shapes, file)
        if arguments.hollow:
            _hollow(arguments.folder / file, shapes, dtype)
            continue
        with write_shard(arguments.folder / file, shapes, dtype) as writer:
            for name, shape in shapes.items():
                for panel in _panels(name, shape, arguments, len(model.blocks)):
                    writer.write(name, panel)
        print(f"{file}: {'outside the blocks' if block is None else f'block {block}'}", flush=True)
    index_text = json.dumps({"metadata": {}, "weight_map": weight_map}, indent=2)
    (arguments.folder / "model.safetensors.index.json").write_text(index_text)


def _hollow(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> None:
    path.write_bytes(encode_header(shapes, dtype))
    os.truncate(path, shard_bytes(shapes, dtype))


def _panels(name: str, shape: tuple[int, ...], arguments: argparse.Namespace, num_blocks: int) -> Iterator[Tensor]:
    own = _generator(name, arguments.seed, 0)
    off = None if arguments.candidate is None else _generator(name, arguments.seed, 1 + arguments.candidate)
    centre, std = _scale(name, shape, num_blocks)
    left = math.prod(shape)
    while left:
        panel = torch.randn(min(left, _PANEL), generator=own).mul_(std)
        if off is not None:
            panel += torch.randn(panel.numel(), generator=off).mul_(std * arguments.spread)
        yield panel.add_(centre)
        left -= panel.numel()


def _generator(name: str, seed: int, stream: int) -> torch.Generator:
    # By name, so that the same tensor of the same seed is the same whatever the number of blocks.
    digest = hashlib.sha256(f"{seed} {stream} {name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _scale(name: str, shape: tuple[int, ...], num_blocks: int) -> tuple[float, float]:
    if "norm" in name:
        return (1.0, 0.1) if name.endswith("weight") else (0.0, 0.02)
    if len(shape) == 1:
        return 0.0, 0.02
    residual = name.endswith(("o_proj.weight", "down_proj.weight", "out_proj.weight", "fc2.weight"))
    return 0.0, _STD / math.sqrt(2 * num_blocks) if residual else _STD


if __name__ == "__main__":
    main()

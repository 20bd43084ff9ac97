"""A merge of a tiny model from nothing: checkpoints, calibration rows, a manifest without `[architecture]`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

import checkpoints
import dense_any
import merging
from tiny_models.model import TinyModel

#: The keys of [merge.others]: what no block holds.
OTHERS = ("embeddings", "final_norm", "head")
#: More tokens than the widest input, in rows of several lengths, most of them longer than the windows of attention.
LENGTHS = (23, 9, 30, 26)
NUM_IMAGES, NUM_SOUNDS, SOUND_SAMPLES = 16, 3, 400


@dataclass(frozen=True)
class TinyMerge(merging.Merge):
    """A merge of tiny checkpoints."""

    model: TinyModel

    def candidates(self) -> list[PreTrainedModel]:
        """The candidates whole, float64."""
        return [load(self.model, folder) for folder in self.folders.candidates]

    def expected(self) -> dense_any.Merged:
        """The dense float64 result for the same inputs."""
        return dense_any.merge(self.model, self.candidates(), self.rows)

    def result(self) -> dict[str, Tensor]:
        """Every tensor of the result as transformers loads it, float64."""
        return dense_any.tensors_of(load(self.model, self.output))


def make_tiny_merge(folder: Path, model: TinyModel, *, candidates: int = 2, spread: float = 0.1) -> TinyMerge:
    """Write a base, candidates near it, calibration rows of each, and `manifest.toml` into `folder`."""
    folder.mkdir(exist_ok=True)
    folders = write_checkpoints(folder, model, candidates, spread)
    text = '[merge]\nmethod = "regmean++"\nbase = "base"\noutput = "merged"\ndtype = "float32"\n[merge.others]\n'
    text += "".join(f'{other} = "average"\n' for other in OTHERS)
    rows = []
    for index, path in enumerate(folders.candidates):
        values = _values(model, seed=100 + index)
        targets = [] if model.targets is None else model.targets(len(values), 200 + index)
        given = [{"decoder_input_ids": torch.tensor([ids])} for ids in targets] or [{}] * len(values)
        rows.append(
            [
                {**row, **model.extra_inputs(row[model.reads]), **target}
                for row, target in zip(_rows(model, values), given, strict=True)
            ]
        )
        source = _write_values(folder / f"task{index}", model, values, targets)
        text += f'\n[[candidates]]\nname = "task{index}"\nmodel = "{path.name}"\n'
        text += f'[candidates.calibration]\npath = "{source.name}"\nbatch_rows = 4\n'
        text += 'field = "input_ids"\n' if model.reads == "input_ids" else ""
        text += 'target = "decoder_input_ids"\n' if targets and model.reads == "input_ids" else ""
    text += f'\n[resources]\ndevice = "{merging.device}"\ncompute_dtype = "float32"\n'
    (folder / "manifest.toml").write_text(text)
    return TinyMerge(folder / "manifest.toml", folders, rows, model)


def write_checkpoints(folder: Path, model: TinyModel, candidates: int, spread: float) -> checkpoints.Folders:
    """Write a base with random weights, and candidates that differ from it in every parameter."""
    generator = torch.Generator().manual_seed(0)
    built = model.build()
    checkpoints.randomise(built, generator)
    origin = {name: tensor.clone() for name, tensor in built.state_dict().items()}
    folders = checkpoints.Folders(
        base=folder / "base", candidates=[folder / f"candidate-{index}" for index in range(candidates)]
    )
    built.save_pretrained(folders.base)
    for path in folders.candidates:
        built.load_state_dict(origin)
        checkpoints.perturb(built, spread, generator)
        built.save_pretrained(path)
    return folders


def load(model: TinyModel, folder: Path) -> PreTrainedModel:
    """The model in a folder, whole, float64, in evaluation mode. No tensor may be missing."""
    options: dict[str, Any] = {"dtype": torch.float64, "output_loading_info": True}
    if model.kind == "experts":
        options["experts_implementation"] = "eager"  # torch has no grouped product in float64
    loaded: tuple[PreTrainedModel, dict[str, Any]] = model.type.from_pretrained(folder, **options)
    whole, info = loaded
    assert not info["missing_keys"], info["missing_keys"]
    whole.config.use_cache = whole.config.get_text_config().use_cache = False
    whole.config.rescale_every = 0  # RWKV's first pass would divide weights in place, for the range of float16
    for parameter in whole.parameters():  # some are loaded as views of one fused tensor, or in float32 always
        parameter.data = parameter.data.to(torch.float64, copy=True)
    for module in whole.modules():
        if vars(module).get("dtype") == torch.float32:  # to which Switch's routers cast their weights in a pass
            vars(module)["dtype"] = torch.float64
    whole.train(False)
    return whole


def _values(model: TinyModel, seed: int) -> list[list[int]] | Tensor:
    if model.reads == "input_ids":
        return checkpoints.random_rows(model.token_ids, LENGTHS, seed)
    generator = torch.Generator().manual_seed(seed)
    if model.reads == "pixel_values":
        shape: Sequence[int] = (NUM_IMAGES, 3, model.image_size, model.image_size)
    elif model.reads == "input_values":
        # Of fewer than 895 samples Moonshine makes no token.
        shape = (NUM_SOUNDS, SOUND_SAMPLES * (3 if model.decoder else 1))
    else:
        shape = (NUM_SOUNDS, 8, 64)  # Whisper's spectra: frequencies, times
    offset = torch.randn(shape[:2], generator=generator).view(*shape[:2], *[1] * (len(shape) - 2))
    return offset + torch.randn(shape, generator=generator)


def _rows(model: TinyModel, values: list[list[int]] | Tensor) -> list[dict[str, Tensor]]:
    """Forward arguments, one unpadded row each."""
    if isinstance(values, Tensor):
        return [{model.reads: row} for row in torch.split(values.double(), 1)]
    return checkpoints.token_inputs(values)


def _write_values(stem: Path, model: TinyModel, values: list[list[int]] | Tensor, targets: list[list[int]]) -> Path:
    if not isinstance(values, Tensor):
        path = checkpoints.write_token_rows(stem.with_suffix(".jsonl"), values)
        if targets:
            rows = [{"input_ids": ids, "decoder_input_ids": t} for ids, t in zip(values, targets, strict=True)]
            path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return path
    path, longest = stem.with_suffix(".safetensors"), max(map(len, targets), default=0)
    tensors: dict[str, Tensor] = {model.reads: values.contiguous()}
    if targets:
        tensors["decoder_input_ids"] = torch.tensor([ids + [0] * (longest - len(ids)) for ids in targets])
        tensors["decoder_attention_mask"] = torch.tensor(
            [[place < len(i) for place in range(longest)] for i in targets]
        )
    save_file(tensors, path, metadata={"format": "pt"})
    return path

"""A small merge from nothing: checkpoints, calibration sets, a manifest, and the dense reference's result for it."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import checkpoints
import reference
from regstream.events import Event, Warned
from regstream.manifest.read_manifest import read_manifest
from regstream.manifest.schema import Manifest
from regstream.planning.plan import Plan
from regstream.planning.planning import make_plan
from regstream.runtime.scheduler import run

#: Where merges run that are not told where; the same tests run on an accelerator, marked `gpu`.
device = "cpu"
#: More tokens than the widest input, in rows of several lengths, some longer than Gemma 2's window.
LENGTHS = (23, 9, 17, 30, 12, 26, 5, 21, 14, 28, 19, 11)


@dataclass(frozen=True)
class Merge:
    """A manifest on disk and what it names."""

    manifest: Path
    folders: checkpoints.Folders
    rows: list[list[dict[str, Tensor]]]

    @property
    def output(self) -> Path:
        """Where its result goes."""
        return self.manifest.parent / "merged"

    def plan(self) -> Plan:
        """The plan of it."""
        return make_plan(self.read())

    def read(self) -> Manifest:
        """The manifest, read."""
        return read_manifest(self.manifest)

    def run(self, **options: Any) -> Path:
        """Run it in this process; the output folder."""
        run(self.plan(), **options)
        return self.output

    def reference(self, method: reference.Method = "regmean++", **options: Any) -> dict[str, Tensor]:
        """The dense float64 result for the same inputs."""
        base = checkpoints.load(self.folders.base)
        candidates = [checkpoints.load(folder) for folder in self.folders.candidates]
        return reference.merge(method, base, candidates, self.rows, **options)


def make_merge(
    folder: Path,
    family: checkpoints.Family = "llama",
    *,
    candidates: int = 3,
    merge: Mapping[str, Any] | None = None,
    rules: str = "",
    architecture: str = "",
    candidate: Callable[[int], str] = lambda index: "",
    calibration: str = "batch_rows = 4",
    resources: str | None = None,
    num_rows: int = 8,
    **options: Any,
) -> Merge:
    """Write checkpoints, calibration sets and `manifest.toml` into `folder`.

    `merge` holds further keys of [merge]; `candidate(i)`, `calibration`, `rules`, `architecture` and
    `resources` are further TOML.
    """
    folders = checkpoints.make_family(folder, family, candidates=candidates, **options)
    keys = {"method": "regmean++", "base": _relative(folders.base, folder), "output": "merged"} | dict(merge or {})
    text = "[merge]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in keys.items()) + rules
    text += architecture
    all_rows = []
    for index, path in enumerate(folders.candidates):
        source, rows = _calibration(folder, family, index, num_rows)
        all_rows.append(rows)
        text += f'\n[[candidates]]\nname = "task{index}"\nmodel = "{_relative(path, folder)}"\n{candidate(index)}\n'
        field = "" if family in checkpoints.IMAGE_FAMILIES else 'field = "input_ids"\n'
        text += f'[candidates.calibration]\npath = "{source.name}"\n{field}{calibration}\n'
    text += "\n[resources]\n" + (f'device = "{device}"' if resources is None else resources) + "\n"
    (folder / "manifest.toml").write_text(text)
    return Merge(folder / "manifest.toml", folders, all_rows)


def without_diagnostics(manifest: Path) -> None:
    """Set `diagnostics = false`, for what is claimed of reads without them."""
    text = manifest.read_text()
    if "[resources]\n" not in text:
        text += "\n[resources]\n"
    manifest.write_text(text.replace("[resources]\n", "[resources]\ndiagnostics = false\n"))


def read_result(output: Path) -> dict[str, Tensor]:
    """Every parameter of a result as transformers loads it, float64."""
    return {name: tensor.detach() for name, tensor in checkpoints.load(output).named_parameters()}


def warnings_in(events: Iterable[Event]) -> list[str]:
    """What a run warned of, but for the random candidates' own embeddings and heads, which the result lacks."""
    warned = (event.message for event in events if isinstance(event, Warned))
    return [message for message in warned if not re.search("(its change|their changes) of model.embed_tokens", message)]


def worst_difference(result: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[float, str]:
    """The largest relative difference of any tensor, and its name."""
    assert result.keys() == expected.keys()
    return max(
        (float((result[name] - expected[name]).norm() / expected[name].norm().clamp_min(1e-12)), name)
        for name in expected
    )


def _calibration(
    folder: Path, family: checkpoints.Family, index: int, num_rows: int
) -> tuple[Path, list[dict[str, Tensor]]]:
    if family not in checkpoints.IMAGE_FAMILIES:
        lengths: Sequence[int] = [LENGTHS[row % len(LENGTHS)] for row in range(num_rows)]
        rows = checkpoints.random_rows(checkpoints.VOCABULARY, lengths, seed=100 + index)
        path = checkpoints.write_token_rows(folder / f"task{index}.jsonl", rows)
        return path, checkpoints.token_inputs(rows)
    pixels = checkpoints.random_images(num_rows, seed=100 + index)
    path = checkpoints.write_images(folder / f"task{index}.safetensors", pixels)
    return path, checkpoints.image_inputs(pixels)


def _relative(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder))


def _toml(value: object) -> str:
    return json.dumps(value)


def cast(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The same tensors rounded to a dtype, in float64."""
    return {name: tensor.to(dtype).double() for name, tensor in tensors.items()}

"""A merge of a published model's shape with random weights, made on disk: checkpoints, calibration sets, a manifest."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from synthetic.shapes import SHAPES

ROOT = Path(__file__).parents[2]
#: Where everything is made; `BENCH_WORK` names another folder, on a larger disk.
WORK = Path(os.environ.get("BENCH_WORK", ROOT / "build" / "bench"))


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is merged. Token rows are all of one length; `length` does not apply to images."""

    shape: str
    candidates: int = 2
    blocks: int = 2
    rows: int = 32
    first_rows: int | None = None  # of the first candidate, where it has others
    length: int = 128
    batch_rows: int | None = None
    dtype: str = "bfloat16"
    compute_dtype: str = "auto"
    vocabulary: int | None = None
    method: str = "regmean++"
    options: tuple[str, ...] = ()  # further lines of [merge]
    distinct: int = 2  # how many candidates are files of their own; further ones are links to them
    adapters: bool = False  # whether candidates are adapters on the base
    host_memory: str | None = None
    device: str = "cpu"

    @property
    def is_vision(self) -> bool:
        """Whether its rows are images."""
        return str(SHAPES[self.shape]["model_type"]).startswith("clip")

    @property
    def name(self) -> str:
        """In one line, for people."""
        rows = f"{self.rows} images" if self.is_vision else f"{self.rows} rows of {self.length} tokens"
        rows += f" ({self.first_rows} of the first)" if self.first_rows is not None else ""
        return f"{self.shape} {self.dtype}, {self.blocks} blocks, K = {self.candidates}, {rows}, {self.told_method}"

    @property
    def told_method(self) -> str:
        """The method with its options."""
        return f"{self.method} ({', '.join(self.options)})" if self.options else self.method

    def checkpoints(self) -> list[Path]:
        """The base's folder and the candidates', written where they do not stand yet."""
        stem = f"{self.shape}-{self.blocks}-{self.vocabulary or 'all'}-{self.dtype}"
        made = [WORK / "checkpoints" / stem / str(index) for index in range(min(self.distinct, self.candidates))]
        with ThreadPoolExecutor(os.cpu_count()) as workers:
            for folder, code in zip(made, workers.map(self._make, made, range(len(made))), strict=True):
                if code != 0:
                    raise SystemExit(f"{folder}: could not be made")
        linked = [_linked(made[index % len(made)], index) for index in range(self.distinct, self.candidates)]
        return [_linked(made[0], "base"), *made, *linked]

    def _make(self, folder: Path, index: int) -> int:
        options = ["--shape", self.shape, "--blocks", str(self.blocks), "--dtype", self.dtype]
        if self.vocabulary:
            options += ["--vocabulary", str(self.vocabulary)]
        return make_folder(folder, "synthetic.checkpoint", *options, "--candidate", str(index))

    def manifest(self, folder: Path) -> Path:
        """Write calibration sets and manifest into an empty folder, where the result goes too."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        base, *candidates = self.checkpoints()
        text = f'[merge]\nmethod = "{self.method}"\nbase = "{base}"\noutput = "merged"\n'
        text += "".join(f"{option}\n" for option in self.options)
        for index, candidate in enumerate(candidates):
            own = f'adapter = "{_adapter(base, index)}"' if self.adapters else f'model = "{candidate}"'
            text += f'[[candidates]]\nname = "task{index}"\n{own}\n[candidates.calibration]\n'
            text += self._calibration(folder, index)
            if self.batch_rows is not None:
                text += f"batch_rows = {self.batch_rows}\n"
        text += f'[resources]\ndevice = "{self.device}"\ncompute_dtype = "{self.compute_dtype}"\n'
        if self.host_memory:
            text += f'host_memory = "{self.host_memory}"\n'
        (folder / "manifest.toml").write_text(text)
        return folder / "manifest.toml"

    def _calibration(self, folder: Path, index: int) -> str:
        generator = torch.Generator().manual_seed(index)
        rows = self.rows if index or self.first_rows is None else self.first_rows
        config = SHAPES[self.shape]
        if self.is_vision:
            path = folder / f"task{index}.safetensors"
            size = config["image_size"]
            save_file({"pixel_values": torch.randn(rows, 3, size, size, generator=generator)}, path)
            return f'path = "{path.name}"\n'
        path = folder / f"task{index}.jsonl"
        vocabulary = self.vocabulary or config["vocab_size"]
        ids = torch.randint(0, vocabulary, (rows, self.length), generator=generator)
        path.write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in ids.tolist()))
        return f'path = "{path.name}"\nfield = "input_ids"\nmax_length = {self.length}\n'


def make_folder(folder: Path, module: str, *options: str) -> int:
    """Have a module write a folder in a process of its own, unless it stands; the process's exit code."""
    if folder.exists():
        return 0
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", module, *options, str(part)]
    code = subprocess.run(command, stdout=subprocess.DEVNULL, env=environment, check=False).returncode
    if code == 0:
        part.rename(folder)
    return code


def _adapter(base: Path, index: int) -> Path:
    folder = base.with_name(f"adapter-{index}")
    if make_folder(folder, "synthetic.adapter", str(base), "--seed", str(index)) != 0:
        raise SystemExit(f"{folder}: could not be made")
    return folder


def _linked(source: Path, name: int | str) -> Path:
    folder = source.parent / f"{name}-linked"
    if not folder.exists():
        folder.mkdir()
        for file in source.iterdir():
            os.link(file, folder / file.name)
    return folder

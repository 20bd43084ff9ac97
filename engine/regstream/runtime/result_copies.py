"""What a step wrote, on every rank: rank 0 has the shard, the others copies of the parts that they still read.

A copy has the bytes of the tensors as the shard has them. It is not durable: a run that resumes makes it again.
"""

import math
from pathlib import Path
from typing import BinaryIO

import torch

from regstream.checkpoint.header import TensorSpec
from regstream.checkpoint.reader import TensorReader
from regstream.planning.plan import Plan
from regstream.planning.step import Step
from regstream.ranks.chunks import CHUNK_BYTES
from regstream.ranks.group import Ranks
from regstream.storage import durable
from regstream.storage.run_folder import GROUP_INPUTS
from regstream.storage.shards import Shards


class ResultCopies:
    """The parts of the result that this rank can read."""

    def __init__(self, plan: Plan, shards: Shards, ranks: Ranks) -> None:
        self._plan, self._shards, self._ranks = plan, shards, ranks
        self._folder = plan.workdir / GROUP_INPUTS

    def share(self, step: Step) -> None:
        """Give every rank a copy of what a step wrote; all of them call this.

        Raises:
            RankError: another rank has ended.
        """
        if self._ranks.size == 1:
            return
        self._folder.mkdir(exist_ok=True)
        path, begin = self._located(step)
        with path.open("rb" if self._ranks.is_first else "wb") as file:
            file.seek(begin)
            for start in range(begin, begin + self._num_bytes(step), CHUNK_BYTES):
                self._pass_on(file, min(CHUNK_BYTES, begin + self._num_bytes(step) - start))

    def reader(self, step: Step) -> TensorReader:
        """A step's result."""
        part = self._plan.parts[step.index]
        file, begin = self._located(step)
        moved = begin - (part.begin + len(part.header))
        begins, specs = {name: first + moved for name, (first, _) in part.extents.items()}, {}
        for parameter in step.parameters:  # those that are parts of a tensor lie one after another
            first = begins[parameter.stored_name]
            last = first + math.prod(parameter.shape) * part.dtype.itemsize
            specs[parameter.name] = TensorSpec(
                file=file, dtype=part.dtype, shape=parameter.shape, begin=first, end=last
            )
            begins[parameter.stored_name] = last
        return TensorReader(f"merged {step.name}", specs)

    def drop(self, step: Step) -> None:
        """Remove the copy of a step's part, unless blocks go on reading it."""
        if not (self._ranks.is_first or self.is_read_later(step)):
            durable.remove_files([self._located(step)[0]])

    def is_read_later(self, step: Step) -> bool:
        """Whether later steps read some of what a step wrote, such as parameters of the stem."""
        return step.is_read_later(self._plan.steps)

    def _located(self, step: Step) -> tuple[Path, int]:
        """The file with a step's tensors, and where they begin in it."""
        part = self._plan.parts[step.index]
        if self._ranks.is_first:
            return self._shards.path(part), part.begin + len(part.header)
        return self._folder / f"{step.index}-result", 0

    def _num_bytes(self, step: Step) -> int:
        part = self._plan.parts[step.index]
        return part.num_bytes - len(part.header)

    def _pass_on(self, file: BinaryIO, num_bytes: int) -> None:
        data = torch.zeros(num_bytes, dtype=torch.uint8)
        view = memoryview(data.numpy().data)
        if self._ranks.is_first:
            view[:] = file.read(num_bytes)
        self._ranks.broadcast(data, 0)
        if not self._ranks.is_first:
            file.write(view)

"""The processes of a run, joined by torch.distributed. Rank 0 has the journal and the result.

Nothing that another process sent is unpickled: values are JSON, tensors have shapes that both sides know.
"""

import json
import os
import socket
from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from regstream.errors import BudgetError, error_reason
from regstream.ranks.environment import ALONE, RankId, launched

#: A rank waits for another as long as that one computes. Ranks that have died are found by a watch of their own.
_WAIT = timedelta(days=7)
#: Values of a tensor that are on their way at a time.
CHUNK_VALUES = 4 << 20
#: Bytes of a file that are on their way at a time.
CHUNK_BYTES = 16 << 20


class Ranks:
    """This process among those of its run. With one process every exchange gives back what is put in."""

    def __init__(self, rank_id: RankId = ALONE) -> None:
        """Join the other processes, each of which does so at the same time.

        Raises:
            BudgetError: they cannot reach one another.
        """
        self.id, self.rank, self.size = rank_id, rank_id.rank, rank_id.size
        self.hosts: tuple[str, ...] = (socket.gethostname(),)
        if self.size > 1:
            _join()
            # Two groups, so that what threads exchange meanwhile is never taken for what the loop exchanges.
            self._loop, self._background = (dist.new_group(backend="gloo", timeout=_WAIT) for _ in range(2))
            self.hosts = tuple(self.gather(self.hosts[0]))

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def label(self, rank: int) -> str:
        """What messages call a rank."""
        return f"rank {rank} on {self.hosts[rank]}"

    def gather(self, value: Any) -> list[Any]:
        """The JSON values of all ranks, in their order; every rank gets them."""
        if self.size == 1:
            return [value]
        data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(sizes, torch.tensor([len(data)]), group=self._loop)
        longest = max(int(size) for size in sizes)
        padded = torch.zeros(longest, dtype=torch.uint8)
        padded[: len(data)] = data
        found = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
        dist.all_gather(found, padded, group=self._loop)
        return [json.loads(part[: int(size)].numpy().tobytes()) for part, size in zip(found, sizes, strict=True)]

    def from_first(self, value: Any) -> Any:
        """The JSON value of rank 0; what others pass is not used."""
        return self.gather(value if self.is_first else None)[0]

    def broadcast(self, tensor: Tensor, source: int) -> None:
        """Have a tensor of all ranks be what that of rank `source` is."""
        for chunk in _chunks(tensor) if self.size > 1 else ():
            sent = chunk.cpu().contiguous()
            dist.broadcast(sent, source, group=self._loop)
            if self.rank != source:
                chunk.copy_(sent)

    def move(self, tensor: Tensor, source: int, target: int) -> None:
        """Have a tensor of rank `target` be what that of rank `source` is; every rank may call this."""
        if source == target or self.rank not in (source, target):
            return
        for chunk in _chunks(tensor):
            sent = chunk.cpu().contiguous()
            if self.rank == source:
                dist.send(sent, target, group=self._loop)
            else:
                dist.recv(sent, source, group=self._loop)
                chunk.copy_(sent)

    def add_up(self, tensor: Tensor, owner: int) -> None:
        """Add to a tensor of rank `owner` those of all others, in a fixed order; theirs keep no meaning.

        Other threads than the one that calls this may exchange something else meanwhile.
        """
        for chunk in _chunks(tensor) if self.size > 1 else ():
            sent = chunk.to("cpu", copy=True).contiguous()
            dist.reduce(sent, owner, group=self._background)
            if self.rank == owner:
                chunk.copy_(sent)


#: For what runs in one process, whatever started it.
NO_OTHERS = Ranks()


@cache
def current_ranks() -> Ranks:
    """This process among those that its launcher started with it; the first call joins them.

    Raises:
        ManifestError: the launcher's variables contradict one another.
        BudgetError: the processes cannot reach one another.
    """
    return Ranks(launched() or ALONE)


def _join() -> None:
    if dist.is_initialized():  # the program that calls this has done so
        return
    try:
        dist.init_process_group("gloo", timeout=_WAIT)
    except (RuntimeError, ValueError, OSError) as error:
        address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise BudgetError(f"the ranks cannot reach one another at {address}: {error_reason(error)}") from error


def _chunks(tensor: Tensor) -> Iterator[Tensor]:
    """Views of a tensor, a few rows at a time."""
    if tensor.dim() == 0 or tensor.numel() <= CHUNK_VALUES:
        yield tensor
        return
    rows = max(1, CHUNK_VALUES // max(1, tensor[0].numel()))
    for top in range(0, tensor.shape[0], rows):
        yield tensor[top : top + rows]

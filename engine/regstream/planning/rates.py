"""How fast this machine does what a merge consists of, measured in a fraction of a second; and the time that follows.

An estimate, from rates of large operations: it leaves out what waits for other programs, for a disk that is slower than
the first bytes came from it, and for downloads.
"""

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch

from regstream.checkpoint.reader import TensorReader
from regstream.device.matmul_precision import MatmulPrecision
from regstream.device.product_rate import copy_rate, product_rate
from regstream.planning.opened_merge import OpenedMerge
from regstream.planning.work import BATCHES, FORMULAS, MOVED, flops_of

#: What is read, and what is hashed, to measure how fast.
_READ_VALUES, _HASHED_BYTES = 4 << 20, 8 << 20

#: Of a large square product's rate, what the products of a merge reach: 0.74 to 0.86 on one core with AVX512, at the
#: widths of SmolLM2-135M, CLIP B/32 and Llama 3.2 1B.
_REACHED_SHARE = 0.8
#: What a batch of hidden states takes to be stored or read, however small: it is an array of its own. 600 rows in as
#: many batches took 17 s through a tiny model; without this the estimate was 0.1 s.
_BATCH_SECONDS = 0.004


@dataclass(frozen=True)
class Rates:
    """What a merge's device and files give a second; each is measured when it is first asked for."""

    merge: OpenedMerge

    def seconds(self, work: Mapping[str, float], *, read_bytes: int = 0, write_bytes: int = 0) -> float:
        """The time of some work (`step_work`) and of what is read and written for it."""
        products = sum(flop / self.of_kind(kind) for kind, flop in flops_of(work).items() if flop)
        products /= _REACHED_SHARE
        moved = work.get(MOVED, 0.0)
        return (
            products
            + work.get(BATCHES, 0.0) * _BATCH_SECONDS
            + (moved / copy_rate(self.merge.compute_dtype, self.merge.device) if moved else 0.0)
            + (read_bytes / self.reading if read_bytes else 0.0)
            + (write_bytes / self.writing if write_bytes else 0.0)
        )

    def of_kind(self, kind: str) -> float:
        """FLOP a second of a kind of work."""
        if kind == FORMULAS:
            return product_rate(torch.float64, self.merge.device)
        compute, sums, device = self.merge.compute_dtype, self.merge.method.sums_dtype(), self.merge.device
        is_narrow = kind.endswith("forward") or (
            kind == "Gram matrices" and MatmulPrecision(sums, compute).uses_narrow_units(device)
        )
        return product_rate(compute if is_narrow else sums, device)

    @cached_property
    def reading(self) -> float:
        """Bytes a second of the base's largest tensor, from its file into the compute dtype, checked."""
        name, spec = max(self.merge.base.tensors.items(), key=lambda tensor: tensor[1].num_bytes)
        base = TensorReader("base", {name: spec})
        if not spec.file.exists():  # still on the hub
            return self.writing
        size = min(_READ_VALUES, max(1, math.prod(spec.shape) // 2))
        values = torch.empty(size, dtype=self.merge.compute_dtype)
        base.read_range(name, 0, values)  # a run's buffers have their memory already
        started = time.perf_counter()
        base.read_range(name, math.prod(spec.shape) - size, values)
        return values.numel() * spec.dtype.itemsize / (time.perf_counter() - started)

    @cached_property
    def writing(self) -> float:
        """Bytes a second that are hashed, as all that is written is; as if the disk did not take longer."""
        content = bytes(_HASHED_BYTES)
        started = time.perf_counter()
        hashlib.sha256(content)
        return len(content) / (time.perf_counter() - started)

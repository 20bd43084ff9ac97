"""Sums of all ranks added up at one of them, group after group, while each computes what comes next."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import torch
from torch import Tensor

from regstream.ranks.group import Ranks


class Reductions:
    """Adds up in a thread, in the order of the calls, which is the same on every rank.

    On an accelerator, whose host is free while it computes, it does so at once.
    """

    def __init__(self, ranks: Ranks, device: torch.device) -> None:
        self._ranks = ranks
        is_idle = ranks.size == 1 or device.type != "cpu"
        self._executor = None if is_idle else ThreadPoolExecutor(max_workers=1, thread_name_prefix="reductions")
        self._pending: dict[str, Future[None]] = {}

    def start(self, name: str, tensors: Sequence[Tensor], owner: int) -> None:
        """Begin to add up some tensors at rank `owner`. They must not be touched before `wait`."""
        if self._executor is None:
            self._add_up(tensors, owner)
        else:
            self._pending[name] = self._executor.submit(self._add_up, tensors, owner)

    def wait(self, name: str) -> None:
        """Wait until those of a name are added up.

        Raises:
            RankError: another rank has ended.
        """
        if (pending := self._pending.pop(name, None)) is not None:
            pending.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            for name in list(self._pending) if error is None else ():
                self.wait(name)
        finally:
            if self._executor is not None:
                self._executor.shutdown(wait=error is None, cancel_futures=True)

    def _add_up(self, tensors: Sequence[Tensor], owner: int) -> None:
        for tensor in tensors:
            self._ranks.add_up(tensor, owner)

"""The processes of a run, joined by torch.distributed. Rank 0 has the journal and the result.

Nothing that another process sent is unpickled: values are JSON, tensors have shapes that both sides know.
"""

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from regstream.errors import BudgetError, RankError, error_reason
from regstream.events import RankProgress
from regstream.ranks.chunks import chunks
from regstream.ranks.environment import ALONE, RankId, launched
from regstream.ranks.watch import Watch

#: A rank waits for another as long as that one computes. Ranks that have died are found by a watch of their own.
_WAIT = timedelta(days=7)
#: Ranks start within this time.
_CONNECT = timedelta(minutes=10)


class Ranks:
    """This process among those of its run. With one process every exchange gives back what is put in."""

    def __init__(self, rank_id: RankId = ALONE) -> None:
        """Join the other processes, each of which does so at the same time.

        Raises:
            BudgetError: they cannot reach one another.
        """
        self.id, self.rank, self.size = rank_id, rank_id.rank, rank_id.size
        self.hosts: tuple[str, ...] = (socket.gethostname(),)
        self._watch: Watch | None = None
        #: Whether what calls the engine tells the other ranks of errors itself, as the command line does.
        self.caller_reports = False
        self._direct: dist.ProcessGroup | None = None
        if self.size > 1:
            with _joining():
                _join()
                # Two groups, so that what threads exchange meanwhile is never taken for what the loop exchanges.
                self._loop, self._background = (dist.new_group(backend="gloo", timeout=_WAIT) for _ in range(2))
                self.hosts = tuple(self.gather(self.hosts[0]))
                self._watch = self._start_watch()

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def label(self, rank: int) -> str:
        """What messages call a rank."""
        return f"rank {rank} on {self.hosts[rank]}"

    def check(self) -> None:
        """Raise the `RankError` of a rank that has failed or died, if one has."""
        if self._watch is not None:
            self._watch.check()

    @contextmanager
    def exchanging(self) -> Iterator[None]:
        """Surround collective operations: one that fails since a rank ended becomes a `RankError` that names the rank.

        Raises:
            RankError: a rank failed or died, which takes some time to find out; or none has, and a connection failed.
        """
        try:
            yield
        except RuntimeError as error:
            if self._watch is None or not _is_of_connection(error):
                raise
            self._watch.wait_for_ending()
            raise RankError("a connection between ranks failed, but all live; rerun the command to resume") from error

    def fail(self, error: BaseException) -> BaseException:
        """Have all ranks end because of an error of this one; returns when they know, after some seconds at most.

        Returns:
            `error`, or the `RankError` of a rank that failed before this one.
        """
        return error if self._watch is None else self._watch.fail(error)

    def takes_report(self) -> bool:
        """Whether this rank is the one to write of the failure, asked after `fail`; true once, on one rank."""
        return self._watch is None or self._watch.takes_report()

    def before_exit(self, call: Callable[[RankError | None], None]) -> None:
        """What to call before this process is ended since it is blocked while another rank has failed, for two seconds;
        it gets the error where this rank is the one to write of it."""
        if self._watch is not None:
            self._watch.before_exit = call

    def close(self) -> None:
        """Wait until all ranks are done with the run; raises as `check` where one fails before that."""
        if self._watch is not None:
            self._watch.close()

    def report(self, step: str, *, fraction: float, doing: str) -> None:
        """Tell the others what this rank does, with its next heartbeat; `fraction` is of the step's work."""
        if self._watch is not None:
            self._watch.report(step, fraction, doing)

    def reports(self) -> tuple[RankProgress, ...]:
        """What each other rank said last of its work, a second ago or two."""
        return () if self._watch is None else self._watch.reports()

    def gather(self, value: Any) -> list[Any]:
        """The JSON values of all ranks, in their order; every rank gets them."""
        if self.size == 1:
            return [value]
        data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        with self.exchanging():
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

    def send_directly(self, backend: str | None) -> None:
        """Exchange tensors of accelerators by a backend of torch.distributed, and not through the host; all call it."""
        if self.size > 1 and backend is not None and self._direct is None:
            self._direct = dist.new_group(backend=backend, timeout=_WAIT)

    def broadcast(self, tensor: Tensor, source: int) -> None:
        """Have a tensor of all ranks be what that of rank `source` is."""
        for chunk in chunks(tensor) if self.size > 1 else ():
            sent, group = self._carried(chunk, self._loop)
            with self.exchanging():
                dist.broadcast(sent, source, group=group)
            if self.rank != source and sent is not chunk:
                chunk.copy_(sent)

    def move(self, tensor: Tensor, source: int, target: int) -> None:
        """Have a tensor of rank `target` be what that of rank `source` is; every rank may call this."""
        if source == target or self.rank not in (source, target):
            return
        for chunk in chunks(tensor):
            sent, group = self._carried(chunk, self._loop)
            with self.exchanging():
                if self.rank == source:
                    dist.send(sent, target, group=group)
                else:
                    dist.recv(sent, source, group=group)
            if self.rank == target and sent is not chunk:
                chunk.copy_(sent)

    def add_up(self, tensor: Tensor, owner: int) -> None:
        """Add to a tensor of rank `owner` those of all others, in a fixed order; theirs keep no meaning.

        Other threads than the one that calls this may exchange something else meanwhile.
        """
        for chunk in chunks(tensor) if self.size > 1 else ():
            sent, group = self._carried(chunk, self._background)
            with self.exchanging():
                dist.reduce(sent, owner, group=group)
            if self.rank == owner and sent is not chunk:
                chunk.copy_(sent)

    def _carried(self, chunk: Tensor, group: dist.ProcessGroup) -> tuple[Tensor, dist.ProcessGroup]:
        """A chunk as it is sent, itself where that can be, and the group that sends it."""
        if self._direct is not None and chunk.device.type != "cpu":
            sent, group = chunk, self._direct
        else:
            sent = chunk.cpu()
        return (sent if sent.is_contiguous() else sent.contiguous()), group

    def _start_watch(self) -> Watch:
        address = os.environ["MASTER_ADDR"]
        store = None
        if self.is_first:
            store = dist.TCPStore(address, 0, is_master=True, wait_for_workers=False, timeout=_CONNECT)
        port = self.from_first(None if store is None else store.port)
        store = store or dist.TCPStore(address, port, wait_for_workers=False, timeout=_CONNECT)
        watch = Watch(store, self.rank, self.hosts)
        self.gather(None)  # all have written a heartbeat
        watch.start()
        return watch


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


@contextmanager
def ending_together() -> Iterator[None]:
    """Have all ranks end where an exception leaves the context on one of them: the others wait for what it would do.

    Raises:
        RankError: another rank failed before.
    """
    try:
        yield
    except BaseException as error:
        ranks = current_ranks() if launched() is not None else NO_OTHERS
        if ranks.caller_reports or (found := ranks.fail(error)) is error:
            raise
        raise found from error


def ranks_of(rank_id: RankId) -> Ranks:
    """The processes among which a plan is shared: this one alone, where it is of all rows."""
    ranks = current_ranks() if rank_id.size > 1 else NO_OTHERS
    assert ranks.id == rank_id, "a plan is shared among the ranks of its run"
    return ranks


def _join() -> None:
    if not dist.is_initialized():  # the program that calls this may have done so
        dist.init_process_group("gloo", timeout=_CONNECT)


@contextmanager
def _joining() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, OSError) as error:
        address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise BudgetError(f"the ranks cannot reach one another at {address}: {error_reason(error)}") from error


def _is_of_connection(error: RuntimeError) -> bool:
    """Whether a collective operation failed since another rank, or what connects it, is gone."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)

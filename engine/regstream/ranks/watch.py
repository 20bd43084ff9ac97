"""The watch that the ranks of a run keep over one another, so that all end when one fails or dies.

Every rank writes a heartbeat to a store that rank 0 hosts, and reads those of the others. The first failure is written
there too, once for all: each rank learns of the same one, and ends with its exit code. Two threads do this, since a
store whose host has stopped answers no call: one exchanges heartbeats, the other measures silence. They go on while
the main thread is blocked in a collective operation, and end the process if it stays there.
"""

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Literal

import torch.distributed as dist

from regstream.errors import RankError
from regstream.events import RankProgress
from regstream.ranks.ending import NO_ENDING, Ending, write_to_stderr
from regstream.ranks.heartbeat import Heartbeat

SILENT_SECONDS = 20.0  # a rank is dead when its heartbeat has not changed for so long
_SUSPECT_SECONDS = 4.0  # and for so long, once a connection to a rank has failed
GRACE_SECONDS = 5.0  # for the main thread to end after a failure, before the watch ends the process
LEAVE_SECONDS = 5.0  # a rank that ends waits so long until the others know why
_BEAT_SECONDS = 1.0
_URGENT_SECONDS = 0.05  # between heartbeats while ranks end
_FRESH_SECONDS = 3.0  # a heartbeat of a rank that lives is not older
_PROOF_BEATS = 3  # so many after an event, a rank lives: one or two may be from before it
_JUDGE_SECONDS = 0.25
_JOIN_SECONDS = 2.0
_WRITE_SECONDS = 2.0  # for what is called before the process ends
_ENDING = "ending"  # its key; a heartbeat's is the number of its rank


class Watch:
    """Tells this rank when another has failed or died, and the others when this one does."""

    def __init__(self, store: dist.Store, rank: int, hosts: Sequence[str]) -> None:
        """Write the first heartbeat. `store` is hosted by rank 0, and of this watch alone."""
        self._store, self._rank, self._hosts, self._process = store, rank, hosts, os.getpid()
        others = [other for other in range(len(hosts)) if other != rank]
        self._changed, self._wake, self._stop = threading.Condition(), threading.Event(), threading.Event()
        self._own = self._sent = Heartbeat()
        self._beats = dict.fromkeys(others, Heartbeat())
        self._silence = dict.fromkeys(others, 0.0)  # in seconds that this process has run
        self._most_silent = SILENT_SECONDS
        self._stalled = self._overdue = 0.0  # seconds since heartbeats were exchanged, and of the grace
        self._ending: Ending | None = None
        self._proposed: Ending | None = None
        self._is_lost = self._is_over = self._is_leaving = self._is_reported = False
        #: Called before the watch ends the process, with the error where this rank is the one to write of it.
        self.before_exit: Callable[[RankError | None], None] = write_to_stderr
        self._threads = [threading.Thread(target=loop, daemon=True) for loop in (self._exchange, self._judge)]
        if rank == 0:
            store.set(_ENDING, NO_ENDING)
        store.set(str(rank), self._own.written())

    def start(self) -> None:
        """Begin to watch, once all ranks have written a heartbeat."""
        for thread in self._threads:
            thread.start()
        atexit.register(self._leave)

    def check(self) -> None:
        """Raise the `RankError` of the rank that failed or died, if one has."""
        with self._changed:
            if self._ending is not None:
                raise self._error(self._ending)

    def wait_for_ending(self) -> None:
        """Wait until a rank is known to have failed or died, or all to live; raises as `check`."""
        with self._changed:
            self._most_silent = _SUSPECT_SECONDS
            heard = {rank: beat.count for rank, beat in self._beats.items()}
            self._changed.wait_for(
                lambda: self._ending or all(self._beats[rank].count >= heard[rank] + _PROOF_BEATS for rank in heard)
            )
            self._most_silent = SILENT_SECONDS
        self.check()

    def fail(self, error: BaseException) -> BaseException:
        """Have all ranks end, and wait until they know why.

        Returns:
            `error`, or the `RankError` of a rank that failed before this one.
        """
        own = Ending.by(self._rank, error)
        with self._changed:
            self._is_leaving = True
            self._proposed = self._proposed or own
            self._wake.set()
            self._changed.wait_for(self._all_know, LEAVE_SECONDS)
            self._ending = self._ending or self._proposed
            self._is_leaving = False
            is_same = isinstance(error, RankError) or self._ending.message == own.message
            return error if is_same else self._error(self._ending)

    def close(self) -> None:
        """Wait until all ranks are done, and stop to watch; raises as `check` where one fails before that."""
        with self._changed:
            if self._is_over:
                return
            self._turn("done")
            self._changed.wait_for(lambda: self._ending is not None or self._others_are("done", "gone"))
            if self._ending is not None:
                raise self._error(self._ending)
            self._is_over = True
            self._turn("gone")
            # Rank 0 hosts the store, and ends last.
            self._changed.wait_for(lambda: self._is_lost or self._is_gone(), LEAVE_SECONDS)

    def takes_report(self) -> bool:
        """Whether this rank is the one to write of the failure, asked after `fail`; true once.

        Rank 0 is while it lives; else the rank whose error it is, or for one that died the first that lives.
        """
        with self._changed:
            is_first_time, self._is_reported = not self._is_reported, True
            if self._rank == 0 or not is_first_time:
                return is_first_time
            if self._beats[0].knows_ending:
                return False
            if self._ending is None or self._ending.message:
                return self._ending is None or self._ending.rank == self._rank
            heard = [rank for rank, silence in self._silence.items() if silence - self._stalled < _FRESH_SECONDS]
            return all(self._rank < rank for rank in heard if rank not in (0, self._ending.rank))

    def report(self, step: str, fraction: float, doing: str) -> None:
        """Have the next heartbeat say what this rank does."""
        with self._changed:
            self._own = replace(self._own, progress=(step, fraction, doing))

    def reports(self) -> tuple[RankProgress, ...]:
        """What the other ranks said last."""
        with self._changed:
            beats = list(self._beats.items())
        return tuple(beat.rank_progress(rank, self._hosts[rank]) for rank, beat in beats)

    def _exchange(self) -> None:
        try:
            while not self._stop.is_set() and self._exchange_once():
                with self._changed:
                    ends = self._own.phase != "running" or self._proposed is not None or self._ending is not None
                self._wake.wait(_URGENT_SECONDS if ends else _BEAT_SECONDS)
                self._wake.clear()
        except RuntimeError:  # of the store: its host has closed the connection
            with self._changed:
                self._is_lost = True
                if not self._is_over:
                    self._ending = self._ending or Ending(rank=0)
                self._changed.notify_all()

    def _exchange_once(self) -> bool:
        """Write a heartbeat and read those of the others; whether there is more to exchange."""
        with self._changed:
            knows = self._ending is not None
            first_knows = self._beats[0].knows_ending if self._rank else knows
            self._own = replace(self._own, count=self._own.count + 1, knows_ending=knows, first_knows=first_knows)
            own, proposed = self._own, self._proposed
        self._store.set(str(self._rank), own.written())
        if proposed is not None:
            self._store.compare_set(_ENDING, NO_ENDING, proposed.written())
        *beats, ending = self._store.multi_get([*map(str, self._beats), _ENDING])
        with self._changed:
            self._sent, self._stalled = own, 0.0
            for rank, beat in zip(list(self._beats), map(Heartbeat.read, beats), strict=True):
                if beat != self._beats[rank]:
                    self._beats[rank], self._silence[rank] = beat, 0.0
            self._ending = self._ending or Ending.read(ending)
            self._changed.notify_all()
        return own.phase != "gone" or self._rank == 0

    def _judge(self) -> None:
        before = time.monotonic()
        while not (self._is_over or self._stop.wait(_JUDGE_SECONDS)):
            now = time.monotonic()
            with self._changed:
                # A process that was suspended has not listened meanwhile.
                self._pass_seconds(min(now - before, 2 * _BEAT_SECONDS))
                ending = self._ending if self._overdue >= GRACE_SECONDS else None
            before = now
            if ending is not None:
                self._end_process(self._error(ending))

    def _pass_seconds(self, seconds: float) -> None:
        """Find ranks that are silent for too long."""
        self._stalled += seconds
        for rank in self._silence:
            self._silence[rank] += seconds
        if self._ending is not None:
            self._overdue += 0.0 if self._is_leaving else seconds
        elif self._rank != 0 and self._stalled >= self._most_silent:
            self._ending = Ending(rank=0)  # what it hosts cannot say so
            self._changed.notify_all()
        elif self._stalled < _FRESH_SECONDS and self._proposed is None:
            silent = (rank for rank, silence in self._silence.items() if silence >= self._most_silent)
            dead = next((rank for rank in silent if self._beats[rank].phase != "gone"), None)
            self._proposed = None if dead is None else Ending(rank=dead)

    def _end_process(self, error: RankError) -> None:
        report = error if self.takes_report() else None
        # In a thread of its own: what the main thread is blocked in may hold a lock of the terminal's.
        writer = threading.Thread(target=self.before_exit, args=(report,), daemon=True)
        writer.start()
        writer.join(_WRITE_SECONDS)
        os._exit(error.exit_code)

    def _leave(self) -> None:
        """At the exit of the interpreter: for programs, which need not call `fail` or `close`."""
        if os.getpid() != self._process:
            return
        if (error := getattr(sys, "last_value", None)) is not None:  # what ends the program
            self.fail(error)
        else:
            with suppress(RankError):
                self.close()
        # A thread that comes back from the store while the interpreter ends would abort the process.
        self._stop.set()
        self._wake.set()
        for thread in self._threads:
            thread.join(_JOIN_SECONDS)

    def _all_know(self) -> bool:
        """Whether all ranks that live know why they end, and that rank 0 does: its store is not needed any more."""
        if self._ending is None or self._is_lost:
            return self._is_lost
        died = None if self._ending.message else self._ending.rank
        others = [beat for rank, beat in self._beats.items() if rank != died]
        if self._rank == 0:
            return all(beat.first_knows for beat in others)
        return died == 0 or (self._sent.first_knows and all(beat.knows_ending for beat in others))

    def _is_gone(self) -> bool:
        return self._others_are("gone") if self._rank == 0 else self._sent.phase == "gone"

    def _others_are(self, *phases: str) -> bool:
        return all(beat.phase in phases for beat in self._beats.values())

    def _turn(self, phase: Literal["done", "gone"]) -> None:
        self._own = replace(self._own, phase=phase)
        self._wake.set()

    def _error(self, ending: Ending) -> RankError:
        return ending.error(f"rank {ending.rank} on {self._hosts[ending.rank]}")

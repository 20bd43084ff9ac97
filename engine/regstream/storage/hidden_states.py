"""Hidden states on disk: a zarr store with one group a depth, one group a candidate, one array a batch.

The arrays of one depth, for all candidates, are that layer's activations. An array holds the valid tokens of its batch
(T, D), without padding, as one chunk with a CRC32C: written once, read once, and checked. zarr has no bfloat16, so
those values are stored as their 16 bits.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
import torch
import zarr
from torch import Tensor
from zarr.codecs import Crc32cCodec
from zarr.storage import LocalStore

from regstream.device.accelerator import Accelerator, Copies, Mark
from regstream.device.accelerator_kinds import accelerator_of
from regstream.storage import durable
from regstream.storage.background_io import WriteBehind, read_ahead
from regstream.storage.run_folder import is_hidden_state

_CPU = torch.device("cpu")
_ZARR_DTYPES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "uint16"}


class CorruptActivations(Exception):
    """Stored hidden states are missing or differ from what was written; they can be computed again."""


class HiddenStates:
    """The store below `folder`. Depth d is the input of block d."""

    def __init__(self, folder: Path, dtype: torch.dtype, device: torch.device = _CPU) -> None:
        self.folder = folder
        self._dtype = dtype
        self._accelerator = accelerator_of(device)
        self._store = LocalStore(folder)

    def read(self, candidate: str, depth: int, num_tokens: Sequence[int]) -> Iterator[Tensor]:
        """Yield each batch's tokens (T, D) on the device, in order; reads and transfers one batch ahead.

        Raises:
            CorruptActivations: a batch is missing, fails its checksum, or has another number of tokens.
        """
        stored = (self._read(candidate, depth, index, count) for index, count in enumerate(num_tokens))
        return read_ahead(stored) if self._accelerator is None else _uploaded(stored, self._accelerator)

    @contextmanager
    def write(self, candidate: str, depth: int) -> Iterator["ActivationWriter"]:
        """Write a candidate's batches of one depth, one batch behind the caller; durable when the context has ended."""
        self._remove(f"{depth}/{candidate}")
        copies = None if self._accelerator is None else self._accelerator.copies("fetched states")
        with WriteBehind() as behind:
            yield ActivationWriter(self, candidate, depth, behind, copies)
        durable.sync_tree(self.folder / str(depth) / candidate)

    def has(self, candidate: str, depth: int, num_batches: int) -> bool:
        """Whether a candidate's batches of one depth are there, and no more; nothing is read."""
        folder = self.folder / str(depth) / candidate
        stored = {path.parent.parent.parent.name for path in folder.glob("*/c/*/*") if path.name.isdigit()}
        return stored == {str(index) for index in range(num_batches)}

    def drop_before(self, depth: int) -> None:
        """Remove the activations of every shallower depth."""
        for folder in self.folder.glob("*"):
            if folder.name.isdigit() and int(folder.name) < depth:
                self._remove(folder.name)

    def clear(self) -> None:
        """Remove all activations, and the folder."""
        durable.remove_matching(self.folder, is_hidden_state)

    def _remove(self, name: str) -> None:
        """Remove what the store makes below one of its folders; any other file there stays."""
        durable.remove_matching(
            self.folder / name, lambda path, is_folder: is_hidden_state(PurePosixPath(name) / path, is_folder)
        )

    def write_batch(self, candidate: str, depth: int, index: int, tokens_TD: Tensor) -> None:
        """Write one batch's tokens as one chunk."""
        array = zarr.create_array(
            self._store,
            name=f"{depth}/{candidate}/{index}",
            shape=tokens_TD.shape,
            chunks=tokens_TD.shape,
            dtype=_ZARR_DTYPES[self._dtype],
            compressors=[Crc32cCodec()],
            filters=None,
            fill_value=0,
            config={"write_empty_chunks": True},
        )
        tokens_TD = tokens_TD.to(self._dtype)
        bits_TD = tokens_TD.view(torch.uint16) if self._dtype == torch.bfloat16 else tokens_TD
        array[...] = np.ascontiguousarray(bits_TD.numpy())

    def _read(self, candidate: str, depth: int, index: int, num_tokens: int) -> Tensor:
        name = f"{depth}/{candidate}/{index}"
        try:
            # zarr would read a missing chunk as zeros, even where its folder exists.
            if not any(path.is_file() for path in (self.folder / name / "c").rglob("*")):
                raise FileNotFoundError("its chunk is missing")
            stored = zarr.open_array(self._store, path=name, mode="r")[...]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptActivations(f"{self.folder / name}: {error}") from error
        assert isinstance(stored, np.ndarray)
        if stored.ndim != 2 or stored.shape[0] != num_tokens or stored.dtype != _ZARR_DTYPES[self._dtype]:
            expected = f"{num_tokens} tokens in {_ZARR_DTYPES[self._dtype]}"
            raise CorruptActivations(f"{self.folder / name}: {stored.dtype} {stored.shape} stored, {expected} expected")
        return torch.from_numpy(stored).view(self._dtype)


class ActivationWriter:
    """Appends batches to one candidate's activations of one depth."""

    def __init__(
        self, states: HiddenStates, candidate: str, depth: int, behind: WriteBehind, copies: Copies | None
    ) -> None:
        self._states, self._candidate, self._depth = states, candidate, depth
        self._behind, self._copies = behind, copies
        self._index = 0

    def append(self, tokens_TD: Tensor) -> None:
        """Write the next batch's tokens, which must not change afterwards."""
        index = self._index
        self._index += 1
        if self._copies is None or tokens_TD.device.type == "cpu":
            self._behind.submit(lambda: self._states.write_batch(self._candidate, self._depth, index, tokens_TD))
            return
        fetched_TD, mark = self._copies.fetch(tokens_TD)

        def write() -> None:
            mark.wait()
            self._states.write_batch(self._candidate, self._depth, index, fetched_TD)

        self._behind.submit(write)


def _uploaded(stored: Iterator[Tensor], accelerator: Accelerator) -> Iterator[Tensor]:
    """Tensors on a device, one sent ahead of the one in use; the one before that has been used up by then."""
    copies, used = accelerator.copies("sent states"), deque[Mark]()

    def sent() -> Iterator[tuple[Tensor, Mark]]:
        for tensor in stored:
            if used:
                used.popleft().wait()
            yield copies.send(tensor)

    for item in read_ahead(sent()):
        yield copies.receive(item)
        used.append(accelerator.mark())  # all that it is used for was asked of the device by now

"""Hidden states on disk: a zarr store with one generation a depth, one group a candidate, one array a batch.

An array holds its batch's valid tokens (T, D), padding left out, as one chunk with a CRC32C, so that a batch is
written once, read once, and noticed when damaged. bfloat16, which zarr does not know, is kept as its 16 bits.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
import torch
import zarr
from torch import Tensor
from zarr.codecs import Crc32cCodec
from zarr.storage import LocalStore

from regstream.device.prefetch import DevicePrefetcher
from regstream.storage import durable
from regstream.storage.background_io import WriteBehind, read_ahead
from regstream.storage.run_folder import is_hidden_state

_CPU = torch.device("cpu")


class CorruptActivations(Exception):
    """Stored hidden states are missing or are not what was written; they can be made again."""


class HiddenStates:
    """The store below `folder`. Depth d is the input of block d."""

    def __init__(self, folder: Path, dtype: torch.dtype, device: torch.device = _CPU) -> None:
        self.folder = folder
        self._dtype = dtype
        self._upload = DevicePrefetcher(device)
        self._store = LocalStore(folder)

    def read(self, candidate: str, depth: int, num_tokens: Sequence[int]) -> Iterator[Tensor]:
        """Each batch's tokens (T, D) on the device, in order, read and sent there ahead by one.

        Raises:
            CorruptActivations: a batch is missing, fails its checksum, or has another number of tokens.
        """
        sent = (self._upload.send(self._read(candidate, depth, i, count)) for i, count in enumerate(num_tokens))
        return map(self._upload.wait, read_ahead(sent))

    @contextmanager
    def write(self, candidate: str, depth: int) -> Iterator["ActivationWriter"]:
        """Write a candidate's batches of one depth, behind by one; durable when the context has ended."""
        self._remove(f"{depth}/{candidate}")
        with WriteBehind() as behind:
            yield ActivationWriter(self, candidate, depth, behind)
        durable.sync_tree(self.folder / str(depth) / candidate)

    def drop_before(self, depth: int) -> None:
        """Let go of every generation that is less deep."""
        for folder in self.folder.glob("*"):
            if folder.name.isdigit() and int(folder.name) < depth:
                self._remove(folder.name)

    def clear(self) -> None:
        """Let go of every generation, and of the folder."""
        durable.remove_known(self.folder, is_hidden_state)

    def _remove(self, name: str) -> None:
        """Remove what a store makes below a folder of it; a file that got in there otherwise stays."""
        durable.remove_known(
            self.folder / name, lambda path, is_folder: is_hidden_state(PurePosixPath(name) / path, is_folder)
        )

    def write_batch(self, candidate: str, depth: int, index: int, tokens_TD: Tensor) -> None:
        """Write one batch's tokens as one chunk."""
        array = zarr.create_array(
            self._store,
            name=f"{depth}/{candidate}/{index}",
            shape=tokens_TD.shape,
            chunks=tokens_TD.shape,
            dtype=_stored(self._dtype),
            compressors=[Crc32cCodec()],
            filters=None,
            fill_value=0,
            config={"write_empty_chunks": True},
        )
        array[...] = _to_numpy(tokens_TD.to(device="cpu", dtype=self._dtype))

    def _read(self, candidate: str, depth: int, index: int, num_tokens: int) -> Tensor:
        name = f"{depth}/{candidate}/{index}"
        try:
            # zarr would read an absent chunk as zeros, also where its folder still stands
            if not any(path.is_file() for path in (self.folder / name / "c").rglob("*")):
                raise FileNotFoundError("its chunk is missing")
            stored = zarr.open_array(self._store, path=name, mode="r")[...]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptActivations(f"{self.folder / name}: {error}") from error
        assert isinstance(stored, np.ndarray)
        if stored.ndim != 2 or stored.shape[0] != num_tokens or stored.dtype != _stored(self._dtype):
            found = f"{stored.dtype} {stored.shape}"
            raise CorruptActivations(
                f"{self.folder / name}: {found} stored, {num_tokens} tokens in {_stored(self._dtype)} expected"
            )
        return torch.from_numpy(stored).view(self._dtype)


class ActivationWriter:
    """Appends batches to one candidate's generation."""

    def __init__(self, states: HiddenStates, candidate: str, depth: int, behind: WriteBehind) -> None:
        self._states, self._candidate, self._depth, self._behind = states, candidate, depth, behind
        self._index = 0

    def append(self, tokens_TD: Tensor) -> None:
        """Write the next batch's tokens, which must not change afterwards."""
        index = self._index
        self._index += 1
        self._behind.submit(lambda: self._states.write_batch(self._candidate, self._depth, index, tokens_TD))


def _stored(dtype: torch.dtype) -> str:
    return {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "uint16"}[dtype]


def _to_numpy(tokens_TD: Tensor) -> "np.ndarray[tuple[int, ...], np.dtype[np.generic]]":
    bits = tokens_TD.view(torch.uint16) if tokens_TD.dtype == torch.bfloat16 else tokens_TD
    return np.ascontiguousarray(bits.numpy())

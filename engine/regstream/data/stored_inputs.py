"""Rows of any model's inputs in a safetensors file: tensors named as arguments of its forward pass."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from regstream.data.batch_policy import BatchPolicy
from regstream.data.row_reader import ATTENTION_MASK, INPUT_IDS
from regstream.data.tensor_rows import open_tensor
from regstream.errors import InputError, error_boundary
from regstream.models.batch import Batch
from regstream.models.row_costs import RowCosts
from regstream.storage.regular_file import check_regular

#: Names the class of each row, for evaluations.
_LABELS = "labels"
#: What a decoder reads beside an encoder's inputs.
_DECODER = "decoder_"
DECODER_INPUT_IDS, DECODER_MASK = f"{_DECODER}{INPUT_IDS}", f"{_DECODER}{ATTENTION_MASK}"
_DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")


@dataclass(frozen=True, kw_only=True)
class ForwardInputs:
    """What a model reads: its main input, such as `input_values`, and all arguments of its forward pass.

    `count_tokens` gives the tokens of a row, from one row's tensors, each (1, …).
    """

    main: str
    arguments: Collection[str]
    count_tokens: Callable[[Mapping[str, Tensor]], int]


class StoredInputs:
    """The tensors of a file, a row each; those named *attention_mask say with 0 what is padding."""

    decoding_bytes = 0

    def __init__(self, path: Path, main: str, arguments: Collection[str]) -> None:
        self._path = path
        with open_tensor(path, main) as tensor:
            self._num_rows = int((tensor.get_shape() or [0])[0])
        with error_boundary(f"{path}"), safe_open(path, framework="pt") as file:
            self.names = tuple(sorted(set(file.keys()) - {_LABELS}))
            slices = {name: file.get_slice(name) for name in self.names}
            shapes = {name: tuple(tensor.get_shape()) for name, tensor in slices.items()}
            dtypes = {name: tensor.get_dtype() for name, tensor in slices.items()}
        for name in self.names:
            if name not in arguments:
                raise InputError(
                    f"{path}: {name} is no argument of the model's forward pass; remove it, or name it as one of"
                    f" {', '.join(sorted(arguments))}"
                )
            if not self._num_rows or shapes[name][:1] != (self._num_rows,):
                raise InputError(
                    f"{path}: {name} has shape {[*shapes[name]]}; expected ({self._num_rows or 'rows'}, …)"
                )
            if dtypes[name] not in _DTYPES:
                raise InputError(f"{path}: {name} is {dtypes[name]}; expected real numbers")

    def __len__(self) -> int:
        return self._num_rows

    def read(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """The rows at these indices of every tensor, (rows, …), in the stored dtypes."""
        return {name: self._read(name, rows) for name in self.names}

    def lengths(self, indices: Sequence[int], num_tokens: int) -> list[int]:
        """The tokens of these rows without padding, where they have `num_tokens` with it.

        Raises:
            InputError: a mask is neither 0 nor 1, pads elsewhere than on the right, or pads what is not tokens.
        """
        masks = [name for name in self.names if name.endswith(ATTENTION_MASK) and not name.startswith(_DECODER)]
        lengths = [num_tokens] * len(indices)
        for place, index in enumerate(indices):
            for name in masks:
                mask = self._read(name, [index])[0]
                length = int(mask.sum())
                is_right = mask.dim() == 1 and length and torch.equal(mask, (torch.arange(len(mask)) < length).to(mask))
                if not is_right or (length < len(mask) and len(mask) != num_tokens):
                    raise InputError(
                        f"{self._path}: row {index + 1}: {name} of shape {[*mask.shape]} marks padding that is not the"
                        f" end of the row's {num_tokens:,} tokens; store rows of one length without padding"
                    )
                lengths[place] = min(lengths[place], length if len(mask) == num_tokens else num_tokens)
        return lengths

    def target_length(self, index: int) -> int:
        """The tokens that a decoder reads of a row, without padding.

        Raises:
            InputError: there are none, or their mask pads elsewhere than on the right.
        """
        if DECODER_INPUT_IDS not in self.names:
            raise InputError(
                f"{self._path}: expected a tensor {DECODER_INPUT_IDS}, of what the decoder reads, beside"
                f" {', '.join(self.names)}"
            )
        ids = self._read(DECODER_INPUT_IDS, [index])[0]
        mask = self._read(DECODER_MASK, [index])[0] if DECODER_MASK in self.names else torch.ones_like(ids)
        length = int(mask.sum())
        if (
            ids.dim() != 1
            or mask.shape != ids.shape
            or not torch.equal(mask, (torch.arange(len(ids)) < length).to(mask))
        ):
            raise InputError(
                f"{self._path}: row {index + 1}: {DECODER_MASK} of shape {[*mask.shape]} marks padding that is not the"
                f" end of {DECODER_INPUT_IDS}, {[*ids.shape]}"
            )
        if not length:
            raise InputError(f"{self._path}: row {index + 1}: no token in {DECODER_INPUT_IDS}; remove the row")
        return length

    def digest(self, rows: Sequence[int]) -> bytes:
        """SHA-256 of names, shapes, dtypes and values.

        Raises:
            InputError: a value is NaN or infinite.
        """
        digest = hashlib.sha256()
        for name, tensor in self.read(rows).items():
            if not bool(torch.isfinite(tensor).all()):
                raise InputError(f"{self._path}: {name} of rows {rows[0]}-{rows[-1]} hold NaN or infinite values")
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.digest()

    def _read(self, name: str, rows: Sequence[int]) -> Tensor:
        with open_tensor(self._path, name) as tensor:
            return torch.cat([tensor[row : row + 1] for row in rows])


class InputRows:
    """Rows of stored inputs in batches, longest first."""

    is_in_memory = False
    decoding_bytes = 0
    largest: tuple[int, ...] = (0,)
    targets: tuple[Batch, ...] = ()
    costs = RowCosts()  # of the longest batch, measured when a merge is planned

    def __init__(
        self,
        source: StoredInputs,
        indices: Sequence[int],
        forward: ForwardInputs,
        batch_policy: BatchPolicy,
        *,
        has_targets: bool = False,
    ) -> None:
        """`has_targets`: a decoder reads the tokens of each row too, and each row is a batch of its own."""
        self._source = source
        self.records_arguments = forward.main == INPUT_IDS  # blocks depend on what the outer model makes of the rest
        if has_targets:
            source.target_length(indices[0])  # what is missing is said before the model runs
        first = source.read(indices[:1])
        self._num_tokens = forward.count_tokens(first)
        lengths = dict(zip(indices, source.lengths(indices, self._num_tokens), strict=True))
        ordered = sorted(indices, key=lambda index: lengths[index], reverse=True)
        self._batches = list(batch_policy.batches(ordered, lambda index: lengths[index]))
        self.batches = tuple(Batch(tuple(lengths[index] for index in rows)) for rows in self._batches)
        if has_targets:
            #: The batches as the decoder reads them.
            self.targets = tuple(Batch(tuple(map(source.target_length, rows))) for rows in self._batches)
            self.largest = (0, max(range(len(self.targets)), key=lambda index: self.targets[index].num_tokens))
        row_bytes = sum(4 * x.numel() if x.is_floating_point() else x.nbytes for x in first.values())
        #: Bytes of the largest batch, floating-point values in float32.
        self.input_bytes = row_bytes * max(map(len, self._batches))
        self.digest = self.read_digest()

    def __len__(self) -> int:
        return sum(map(len, self._batches))

    def target_labels(self, index: int) -> Tensor:
        """The tokens that the decoder is to predict, (B, L - 1): one at each of its first positions."""
        ids_BL = self._source.read(self._batches[index])[DECODER_INPUT_IDS]
        return ids_BL[:, 1 : self.targets[index].shape[1]].long()

    def located_targets(self) -> Iterator[tuple[str, NDArray[np.integer[Any]]]]:
        """What the decoder reads of each row, without padding, with the row's location."""
        for index, (row,) in enumerate(self._batches):
            ids = self._source.read([row])[DECODER_INPUT_IDS][0]
            yield f"row {row + 1}", ids[: self.targets[index].num_tokens].long().numpy()

    def read_digest(self) -> str:
        """Compute the digest anew, to detect a file that changed since."""
        digest = hashlib.sha256()
        for rows in self._batches:
            digest.update(f"batch {len(rows)}\n".encode() + self._source.digest(rows))
        return digest.hexdigest()

    def inputs(self, index: int, *, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
        """The forward's arguments: the stored tensors (B, …), those of tokens cut to the longest row of the batch."""
        longest = self.batches[index].shape[1]
        is_padded = longest < self._num_tokens

        def is_cut(name: str, value: Tensor) -> bool:
            return is_padded and not name.startswith(_DECODER) and value.shape[1:2] == (self._num_tokens,)

        inputs = self._source.read(self._batches[index])
        if self.targets:
            length = self.targets[index].shape[1]
            inputs.pop(DECODER_MASK, None)
            inputs[DECODER_INPUT_IDS] = inputs[DECODER_INPUT_IDS][:, :length]
        return {
            name: (value[:, :longest] if is_cut(name, value) else value).to(
                device=device, dtype=dtype if value.is_floating_point() else value.dtype
            )
            for name, value in inputs.items()
        }


def stored_names(path: Path) -> frozenset[str]:
    """The names of a safetensors file's tensors.

    Raises:
        InputError: the file cannot be read.
    """
    with error_boundary(f"{path}"), safe_open(check_regular(path), framework="pt") as file:
        return frozenset(file.keys())

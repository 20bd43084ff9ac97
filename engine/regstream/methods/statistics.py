"""What a method sums of the inputs of linears and norms, and what it is told of them.

Loading this file imports no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from regstream.linalg.iterated_tikhonov import MeanRows
    from regstream.linalg.solve_report import SolveReport


@dataclass(frozen=True, kw_only=True)
class LinearGroup:
    """The linears of a block that read the same tensor, by name, with their output features."""

    name: str
    in_features: int
    out_features: Mapping[str, int]
    transposed: bool = False  # weights are stored as (in, out)
    biases: tuple[str, ...] = ()  # the linears whose biases are solved for too
    #: Of all tokens, those that an expert gets on average; None for linears that read every token.
    share: float | None = None

    @property
    def is_routed(self) -> bool:
        """Whether its linears are an expert's, which gets as many tokens as turn out."""
        return self.share is not None

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """(out, in) by linear."""
        return {linear: (out_features, self.in_features) for linear, out_features in self.out_features.items()}


@dataclass(frozen=True, kw_only=True)
class NormGroup:
    """A norm of a block whose weight, and bias if it has one, are calibrated."""

    name: str
    channels: int
    has_bias: bool


@dataclass(frozen=True, kw_only=True)
class TokenCounts:
    """How many tokens the calibration sets have, and the dtype and device of activations."""

    candidates: Sequence[int]
    largest_batch: int
    dtype: "torch.dtype"
    device: "torch.device"


class GroupStatistics(Protocol):
    """The sums over candidates that solve one input group or norm. The engine makes one for each pass over a block.

    Parameters go by the name of their linear where they are its weight, and else by their name in the block.
    """

    @property
    def dtype(self) -> "torch.dtype":
        """The dtype of the sums."""

    @property
    def num_tokens(self) -> int:
        """The tokens added for the current candidate."""

    def begin_candidate(self, num_tokens: int, total: int | None = None) -> None:
        """Begin the next candidate, for which `num_tokens` tokens follow: all that it has, or a part of `total`.

        Of a group that is routed, at most so many, and no rank has a part of them.
        """

    def add_tokens(self, *inputs_TI: "Tensor") -> None:
        """Add one batch of inputs (T, I) of the group's linears, one tensor for each of the method's streams.

        Of a norm, of the first stream alone: its inputs as it normalises them, before its weight and its bias.
        """

    def is_finite(self) -> bool:
        """Whether no token of the current candidate held a NaN or an infinity."""

    def add_candidate(
        self, own: Mapping[str, "Tensor"], reference: Mapping[str, "Tensor"] | None, *, weight: float
    ) -> None:
        """Add the current candidate to the sums, with its parameters, weights as (O, I), and those of the reference R.

        Without a reference the candidate is the reference itself.
        """

    def sums(self) -> "Sequence[Tensor]":
        """What is summed over candidates, which several ranks add up in place before one of them solves.

        Views of the same shapes on every rank. What a candidate adds is linear in its tokens, or no rank has a part.
        """

    def solve(self, mean: "MeanRows") -> tuple[Mapping[str, "Tensor"], "SolveReport | None"]:
        """Solve for the differences from the reference, in buffers that the caller may overwrite.

        There is no report of a solve that cannot be ill-posed.

        Raises:
            SolveError: there is no trustworthy solution.
        """

"""One tensor of base, candidates and a prior, as a method without statistics reads it.

Loading this file imports no torch.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from torch import Tensor

#: Values of a part of a tensor.
PART_VALUES: Final = 1 << 20
#: Of which each takes so many bytes.
FLOAT32_BYTES: Final = 4


class TensorSource(Protocol):
    """Values of one tensor, float32, read anew at each call, so that memory is what the method keeps of them."""

    @property
    def num_candidates(self) -> int:
        """K."""

    @property
    def shares(self) -> Sequence[float]:
        """Each candidate's weight over the mean of all; 0 of one that is left out."""

    @property
    def scales(self) -> Sequence[float | None]:
        """The `scale` of each candidate that has one of its own."""

    @property
    def densities(self) -> Sequence[float | None]:
        """The `density` of each candidate that has one of its own."""

    @property
    def is_linear(self) -> bool:
        """Whether it is the weight of a linear in a block, a matrix."""

    def parts(self) -> Iterator[slice]:
        """Ranges of flat indices, `PART_VALUES` each and one after another: of all values, as files hold them."""

    def base(self, part: slice) -> "Tensor":
        """A part of the base's values, flat."""

    def candidate(self, index: int, part: slice) -> "Tensor":
        """A part of a candidate's values, flat."""

    def prior_model(self, part: slice) -> "Tensor":
        """A part of the values of the manifest's `prior_model`, flat; only with a method that reads it."""

    def mask_key(self, index: int) -> bytes:
        """What random masks of a candidate's values follow from, with their positions: see `random_masks`."""

    def base_matrix(self) -> "Tensor":
        """The base's weight of a linear, (O, I)."""

    def candidate_matrix(self, index: int) -> "Tensor":
        """A candidate's weight of a linear, (O, I)."""

    def as_stored(self, weight_OI: "Tensor") -> "Tensor":
        """The values of a linear's weight, flat, in the order in which files hold it."""


def weighted(source: TensorSource) -> list[tuple[int, float]]:
    """The candidates that are not left out, by index, with their shares."""
    return [(index, share) for index, share in enumerate(source.shares) if share]

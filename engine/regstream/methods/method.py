"""What every method says of itself."""

from abc import ABC, abstractmethod
from enum import Enum
from typing import ClassVar, Literal

from torch import Tensor

#: What becomes of a parameter. `combine` is the method's own rule for parameters that it does not regress.
Use = Literal["regress", "average", "base", "combine"]


class States(Enum):
    """Whose hidden states the Gram matrices come from."""

    NONE = "none"  # the method looks at weights only
    OWN = "own"  # each candidate's own forward pass
    MERGED = "merged"  # the merged prefix


class Method(ABC):
    """A way of merging. What it leaves unsaid is the candidates' mean, by their weights."""

    name: ClassVar[str]
    states: ClassVar[States] = States.NONE

    @abstractmethod
    def use(self, *, regressable: bool) -> Use:
        """What becomes of a parameter that no rule names; `regressable` for the weight of a linear in a block."""

    def combine(self, mean: Tensor, base: Tensor, num_candidates: int) -> Tensor:
        """The merged values where `use` is "combine", from float32 values of the candidates' mean and the base.

        They may come in the mean's place.
        """
        raise NotImplementedError(f"{self.name} combines nothing")

"""RegMean (Jin et al., ICLR 2023): each linear minimises Σᵢ ‖XᵢW − XᵢWᵢ‖², Xᵢ from candidate i's own forward pass."""

from collections.abc import Mapping
from typing import ClassVar

from regstream.linalg.gram import Workspace
from regstream.linalg.normal_equations import NormalEquations
from regstream.methods.method import Method, States, Use


class RegMean(Method):
    """Weights of linears in blocks are regressed, all else in a block is the mean."""

    name: ClassVar[str] = "regmean"
    states: ClassVar[States] = States.OWN

    def __init__(self, *, alpha: float) -> None:
        self.alpha = alpha

    def use(self, *, regressable: bool) -> Use:
        """Regression for the weights of linears in blocks."""
        return "regress" if regressable else "average"

    def system(self, group: str, linears: Mapping[str, tuple[int, int]], workspace: Workspace) -> NormalEquations:
        """The sums that one input group's regression needs of its candidates."""
        return NormalEquations(group, linears, alpha=self.alpha, workspace=workspace)

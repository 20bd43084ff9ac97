"""The regression of one input group: sums over candidates, then the solve for the difference from a reference.

Minimising Σᵢ wᵢ ‖XᵢW − XᵢWᵢ‖² / cᵢ gives, for W = R + D and any reference R,

    D Σᵢ wᵢĜᵢ/cᵢ = Σᵢ wᵢ(Wᵢ − R)Ĝᵢ/cᵢ,     Ĝ = αG + (1 − α)diag(G),     G = XᵀX,

where cᵢ is the number of tokens (RegMean, Jin et al., ICLR 2023) or ‖Gᵢ‖_F (FeatCal, arXiv 2605.13030), so that a
candidate with large activations weighs no more than another. Only these sums are kept, however many candidates there
are.

Where R decides nothing it is the first candidate's weight, or that of the model which all candidates are adapters on:
known before the others are read, and about as near to them as their mean is, so that rounding scales with the
candidates' spread and not with the weights. Otherwise it is the method's prior. A teacher changes the right-hand side
(`teacher`); biases follow from the solved weights (`bias_equations`).

Shape suffixes: I in-features, O out-features, P rows.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from regstream.device.tiles import tiles_of
from regstream.device.workspace import ROW_PADDING, Workspace
from regstream.linalg.bias_equations import BiasEquations
from regstream.linalg.gram import Gram
from regstream.linalg.iterated_tikhonov import MeanRows
from regstream.linalg.linear_system import LinearSystem, Solver
from regstream.linalg.packed_symmetric import PackedSymmetric, blocks_width
from regstream.linalg.solve_report import SolveReport
from regstream.linalg.teacher import Teacher


class NormalEquations:
    """Σ Ĝᵢ/cᵢ and, for every linear of the group, Σ (Wᵢ − R)Ĝᵢ/cᵢ.

    One square holds all that is (I, I): ΣG above the diagonal, below it one candidate's G, and later the factor.
    """

    def __init__(
        self,
        group: str,
        linears: Mapping[str, tuple[int, int]],
        *,
        solver: Solver,
        divides_by_norm: bool = False,
        teacher: Teacher | None = None,
        biases: BiasEquations | None = None,
        is_routed: bool = False,
        workspace: Workspace,
    ) -> None:
        """`linears` names each linear of the group with its (out, in) features; all share `in`.

        `is_routed`: the tokens of a candidate are as many as turn out to be, of one that has none it adds nothing.
        """
        self.group = group
        self.dtype = solver.dtype
        self._solver, self._alpha, self._divides_by_norm = solver, solver.alpha, divides_by_norm
        self._teacher, self._biases = teacher, biases
        self._workspace, self._tiles = workspace, tiles_of(workspace.device)
        (self._width,) = {in_features for _, in_features in linears.values()}
        shapes = {"square": (self._width, self._width + ROW_PADDING)}
        shapes |= dict.fromkeys(("sum", "own"), (self._width, blocks_width(self._width, workspace.device)))
        buffers = workspace.buffers(f"sums of {group}", shapes, self.dtype)
        square_II = buffers["square"][:, : self._width]
        self._sum = PackedSymmetric(square_II, buffers["sum"])
        self._gram = Gram(PackedSymmetric(square_II.T, buffers["own"]), workspace, f"stored tokens of {group}")
        self._rhs_OI = workspace.buffers(f"right-hand sides of {group}", linears, self.dtype)
        self._num_tokens = torch.zeros(1, dtype=torch.int64, device=workspace.device)
        self._of_candidate, self._is_routed = 0, is_routed
        self._sum.zero()
        for rhs_OI in self._rhs_OI.values():
            rhs_OI.zero_()

    @property
    def num_tokens(self) -> int:
        """The tokens observed of the current candidate."""
        return self._gram.num_tokens

    def begin_candidate(self, num_tokens: int, total: int | None = None) -> None:
        """Start with the next candidate, of whom so many tokens will be observed: of `total`, or else all.

        Of a group that is routed they are as many at most.
        """
        self._gram.reset(num_tokens)
        self._of_candidate = num_tokens if total is None else total
        for sums in (self._teacher, self._biases):
            if sums is not None:
                sums.reset()

    def add_tokens(self, *inputs_TI: Tensor) -> None:
        """Add tokens (T, I); with a teacher, the same tokens as the teacher has them too."""
        x_TI, *teacher_TI = inputs_TI
        self._gram.add(x_TI)
        if self._teacher is not None:
            self._teacher.add(x_TI, *teacher_TI)
        if self._biases is not None:
            self._biases.add_tokens(x_TI, *teacher_TI)

    def is_finite(self) -> bool:
        """Whether no token of the current candidate held a NaN or an infinity, and no square overflowed."""
        return self._gram.is_finite() and (self._teacher is None or self._teacher.is_finite())

    def add_candidate(
        self, own: Mapping[str, Tensor], reference: Mapping[str, Tensor] | None, *, weight: float
    ) -> None:
        """Add the current candidate: its Gram matrix, its weights (O, I), and the reference's.

        Without a reference the candidate is the reference itself, and only its Gram matrix is added.
        """
        if self._is_routed:
            self._of_candidate = self._gram.num_tokens
            if not self._of_candidate:
                return
        scale = weight / (self._gram.norm() if self._divides_by_norm else self._of_candidate)
        self._gram.add_to(self._sum, scale)
        self._num_tokens += self._gram.num_tokens
        if reference is None:
            return
        diagonal_I = self._gram.diagonal()
        for name, rhs_OI in self._rhs_OI.items():
            for rows in panels(rhs_OI.shape[0], self._tiles.panel_rows):
                delta_PI = self._workspace.matrix(rows.stop - rows.start, self._width, self.dtype)
                delta_PI.copy_(own[name][rows]).sub_(reference[name][rows])
                if self._biases is not None:
                    self._biases.add_rows(name, rows, own[name][rows], delta_PI, scale)
                self._gram.multiply(delta_PI, rhs_OI[rows], self._alpha * scale)
                if self._alpha != 1:
                    rhs_OI[rows].add_(delta_PI.mul_(diagonal_I), alpha=(1 - self._alpha) * scale)
                if self._teacher is not None:
                    self._teacher.multiply(delta_PI.copy_(own[name][rows]), rhs_OI[rows], scale)
        if self._biases is not None:
            self._biases.add_candidate(own, reference, scale=scale, num_tokens=self._gram.num_tokens)

    def sums(self) -> list[Tensor]:
        """What is summed over candidates: views, all of it once."""
        biases = [] if self._biases is None else self._biases.sums()
        return [self._num_tokens, *self._sum.parts(), *self._rhs_OI.values(), *biases]

    def solve(self, mean: MeanRows) -> tuple[Mapping[str, Tensor], SolveReport]:
        """Solve for D, (O, I) in the sums' dtype for each linear, in this object's own buffers, and for biases, (O,).

        The Gram matrix of the last candidate is overwritten. `mean` has the difference from R that a direction keeps
        which no token visits; it is asked only where there may be one.

        Raises:
            SolveError: there is no trustworthy solution.
        """
        if self._is_routed and not int(self._num_tokens):
            return self._unvisited(mean)
        system = LinearSystem(
            group=self.group,
            matrix=self._sum,
            rhs_OI=self._rhs_OI,
            num_tokens=int(self._num_tokens),
            mean=mean,
        )
        report = self._solver.solve(system)
        biases = {} if self._biases is None else self._biases.solve(self._rhs_OI)
        return {**self._rhs_OI, **biases}, report

    def _unvisited(self, mean: MeanRows) -> tuple[Mapping[str, Tensor], SolveReport]:
        """The mean of the candidates, where no token of any of them was routed here."""
        for name, rhs_OI in self._rhs_OI.items():
            for rows in panels(rhs_OI.shape[0], self._tiles.panel_rows):
                rhs_OI[rows] = mean(name, rows)
        report = SolveReport(
            group=self.group,
            in_features=self._width,
            linears=tuple(self._rhs_OI),
            num_tokens=0,
            route="mean",
            condition=1.0,
            residual=0.0,
            ridge=0.0,
            dead_inputs=self._width,
        )
        return self._rhs_OI, report


def panels(num_rows: int, at_a_time: int) -> Iterator[slice]:
    """Ranges of rows, so many at a time."""
    for start in range(0, num_rows, at_a_time):
        yield slice(start, min(start + at_a_time, num_rows))

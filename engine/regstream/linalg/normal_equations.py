"""The regression of one input group: sums over candidates, then the solve relative to the mean.

Minimising Σᵢ wᵢ ‖XᵢW − XᵢWᵢ‖² / tokensᵢ with the off-diagonal scale α (RegMean, Jin et al., ICLR 2023) gives, for
W = R + D and any reference R,

    D Σᵢ wᵢĜᵢ = Σᵢ wᵢ(Wᵢ − R)Ĝᵢ,     Ĝ = αG + (1 − α)diag(G).

R is the first candidate's weight, or that of the model which all candidates are adapters on: known before the others
are read, and about as near to them as their mean is, so that rounding scales with the candidates' spread and not with
the weights. Where the system is singular, or nearly so, its solution starts from the weighted mean of (Wᵢ − R) and is
corrected only in directions that tokens visit (`iterated_tikhonov`): one that no token visits keeps that mean.

Shape suffixes: I in-features, O out-features.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from regstream.device.tiles import tiles_of
from regstream.device.workspace import ROW_PADDING, Workspace
from regstream.errors import SolveError
from regstream.linalg.factorisation import MAX_RESIDUAL, Factorisation, factorise
from regstream.linalg.gram import Gram, accumulation_dtype
from regstream.linalg.iterated_tikhonov import InitialSolution, MeanRows
from regstream.linalg.packed_symmetric import PackedSymmetric, blocks_width
from regstream.linalg.solve_report import SolveReport

#: An input whose diagonal is below this ratio of the median takes the mean: rounding hides it, and a regression would
#: give it huge weights.
DEAD_INPUT_RATIO = torch.finfo(torch.float32).eps ** 2
_PROBES = 4


class NormalEquations:
    """ΣĜ and, for every linear of the group, Σ(W − R)Ĝ: what a merge keeps of its candidates, however many.

    One square holds all that is (I, I): ΣG above the diagonal, below it one candidate's G, and later the factor.
    """

    def __init__(
        self, group: str, linears: Mapping[str, tuple[int, int]], *, alpha: float, workspace: Workspace
    ) -> None:
        """`linears` names each linear of the group with its (out, in) features; all share `in`."""
        self.group = group
        self.dtype = accumulation_dtype(alpha)
        self._alpha = alpha
        self._workspace, self._tiles = workspace, tiles_of(workspace.device)
        (self._width,) = {in_features for _, in_features in linears.values()}
        shapes = {"square": (self._width, self._width + ROW_PADDING)}
        shapes |= dict.fromkeys(("sum", "own"), (self._width, blocks_width(self._width, workspace.device)))
        buffers = workspace.buffers(f"sums of {group}", shapes, self.dtype)
        square_II = buffers["square"][:, : self._width]
        self._sum = PackedSymmetric(square_II, buffers["sum"])
        self._gram = Gram(PackedSymmetric(square_II.T, buffers["own"]), workspace, f"stored tokens of {group}")
        self._rhs_OI = workspace.buffers(f"right-hand sides of {group}", linears, self.dtype)
        self._num_tokens = 0
        self._sum.zero()
        for rhs_OI in self._rhs_OI.values():
            rhs_OI.zero_()

    @property
    def num_tokens(self) -> int:
        """The tokens observed of the current candidate."""
        return self._gram.num_tokens

    def begin_candidate(self, num_tokens: int) -> None:
        """InitialSolution with the next candidate, of whom so many tokens will be observed."""
        self._gram.reset(num_tokens)

    def add_tokens(self, *inputs_TI: Tensor) -> None:
        """Add tokens (T, I)."""
        (x_TI,) = inputs_TI
        self._gram.add(x_TI)

    def is_finite(self) -> bool:
        """Whether no token of the current candidate held a NaN or an infinity, and no square overflowed."""
        return self._gram.is_finite()

    def add_candidate(
        self, own: Mapping[str, Tensor], reference: Mapping[str, Tensor] | None, *, weight: float
    ) -> None:
        """Add the current candidate: its Gram matrix, its weights (O, I), and the reference's in the same dtype.

        Without a reference the candidate is the reference itself, and only its Gram matrix is added.
        """
        scale = weight / self._gram.num_tokens
        self._gram.add_to(self._sum, scale)
        self._num_tokens += self._gram.num_tokens
        if reference is None:
            return
        diagonal_I = self._gram.diagonal()
        for name, rhs_OI in self._rhs_OI.items():
            for rows in _panels(rhs_OI.shape[0], self._tiles.panel_rows):
                delta_PI = self._workspace.matrix(rows.stop - rows.start, self._width, self.dtype)
                delta_PI.copy_(own[name][rows]).sub_(reference[name][rows])
                self._gram.multiply(delta_PI, rhs_OI[rows], self._alpha * scale)
                rhs_OI[rows].add_(delta_PI.mul_(diagonal_I), alpha=(1 - self._alpha) * scale)

    def solve(self, mean: MeanRows) -> tuple[Mapping[str, Tensor], SolveReport]:
        """Solve for D, (O, I) in the sums' dtype for each linear, in this object's own buffers.

        `mean` is asked only where a ridge is needed or an input is dead, which is rare: rather than kept, the mean is
        read again then. The Gram matrix of the last candidate is overwritten by the factorisation.

        Raises:
            SolveError: no ridge of the fallback sequence gives a residual that can be trusted.
        """
        scale_I, unscale_I = self._equilibrate()
        start = InitialSolution(mean, unscale_I)
        factorisation = factorise(self._sum, self._ridge(scale_I), lambda found: self._converges(found, start))
        probes = [probe_NO @ rhs_OI for _, probe_NO, rhs_OI in self._random_probes()]
        at_a_time = self._tiles.filtered_rows if factorisation.ridge else self._tiles.panel_rows
        for name, rhs_OI in self._rhs_OI.items():
            for rows in _panels(rhs_OI.shape[0], at_a_time):
                start_PI = start.rows(name, rows) if factorisation.ridge else None
                factorisation.solve_rows(rhs_OI[rows], start_PI)
        residual = max(
            factorisation.residual(probe_NI, probe_NO @ solution_OI)
            for probe_NI, (_, probe_NO, solution_OI) in zip(probes, self._random_probes(), strict=True)
        )
        if not residual <= MAX_RESIDUAL:
            raise SolveError(
                f"relative residual {residual:.1e} (limit {MAX_RESIDUAL:.0e})"
                f" with a ridge of {factorisation.ridge:g} of the median diagonal"
            )
        dead_I = scale_I == 0
        for name, solution_OI in self._rhs_OI.items():
            solution_OI.mul_(scale_I)
            for rows in _panels(solution_OI.shape[0], self._tiles.panel_rows) if bool(dead_I.any()) else ():
                solution_OI[rows, dead_I] = mean(name, rows)[:, dead_I]
        return self._rhs_OI, SolveReport(
            group=self.group,
            in_features=self._width,
            linears=tuple(self._rhs_OI),
            num_tokens=self._num_tokens,
            route=factorisation.route,
            condition=factorisation.condition,
            residual=residual,
            ridge=factorisation.ridge,
            dead_inputs=int(dead_I.sum()),
        )

    def _equilibrate(self) -> tuple[Tensor, Tensor]:
        """Apply α and scale the system to a unit diagonal. Returns the scale (0 for a dead input) and its inverse."""
        diagonal_I = self._sum.diagonal()
        tiny = torch.finfo(torch.float32).tiny
        live_I = diagonal_I[diagonal_I > tiny]
        dead_I = diagonal_I <= max(tiny, DEAD_INPUT_RATIO * float(live_I.median()) if len(live_I) else 0.0)
        scale_I = diagonal_I.rsqrt().masked_fill_(dead_I, 0.0)
        self._sum.scale(scale_I * self._alpha**0.5)
        for rhs_OI in self._rhs_OI.values():
            rhs_OI.mul_(scale_I)
        return scale_I, diagonal_I.sqrt_().masked_fill_(dead_I, 0.0)

    def _ridge(self, scale_I: Tensor) -> Tensor:
        """A ridge of 1 of the median of the diagonal, as it is added to the diagonal of the scaled system.

        It is the same for every input before scaling: what is left of a direction that no token visits is the mean's
        output for that very direction of inputs.
        """
        live_I = scale_I[scale_I > 0]
        return (scale_I / live_I.median()).square_() if len(live_I) else scale_I

    def _converges(self, factorisation: Factorisation, start: InitialSolution) -> bool:
        """Whether the route holds on a few combinations of the right-hand sides, before any is overwritten."""
        for name, probe_NO, rhs_OI in self._random_probes():
            rhs_NI = probe_NO @ rhs_OI
            solution_NI = rhs_NI.clone()
            start_NI = start.random_combinations(name, probe_NO) if factorisation.ridge else None
            factorisation.solve_rows(solution_NI, start_NI)
            if not factorisation.residual(rhs_NI, solution_NI) <= MAX_RESIDUAL:
                return False
        return True

    def _random_probes(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Each linear's right-hand sides (or solutions), behind the same few random combinations of its rows."""
        for name, rhs_OI in self._rhs_OI.items():
            generator = torch.Generator().manual_seed(rhs_OI.shape[0])
            yield name, torch.randn(_PROBES, rhs_OI.shape[0], generator=generator).to(rhs_OI), rhs_OI


def _panels(num_rows: int, at_a_time: int) -> Iterator[slice]:
    for start in range(0, num_rows, at_a_time):
        yield slice(start, min(start + at_a_time, num_rows))

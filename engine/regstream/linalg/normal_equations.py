"""The regression of one input group: sums over candidates, then the solve relative to the mean.

Minimising Σᵢ wᵢ ‖XᵢW − XᵢWᵢ‖² / tokensᵢ with the off-diagonal scale α (RegMean, Jin et al., ICLR 2023) gives, for
W = R + D and any reference R,

    D Σᵢ wᵢĜᵢ = Σᵢ wᵢ(Wᵢ − R)Ĝᵢ,     Ĝ = αG + (1 − α)diag(G).

R is the first candidate's weight, or that of the model which all candidates are adapters on: known before the others
are read, and about as near to them as their mean is, so that rounding scales with the candidates' spread and not with
the weights. Where the system is singular, or nearly so, its solution starts from the weighted mean of (Wᵢ − R) and is
corrected only in directions that tokens visit (`spectral`): one that no token visits keeps the mean of the candidates.

Shape suffixes: I in-features, O out-features.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from regstream.errors import SolveError
from regstream.linalg.cholesky import cholesky, condition_estimate, refine_rows, solve_rows
from regstream.linalg.gram import Gram, Workspace
from regstream.linalg.solve_report import SolveReport
from regstream.linalg.spectral import FILTERED_ROWS, MeanRows, Start, correct_rows
from regstream.linalg.symmetric import Symmetric, blocks_width

#: Output rows handled at a time.
PANEL_ROWS = 1024
#: Ridges tried in turn, relative to the median of the diagonal. Directions of eigenvalues well below the one that is
#: taken count as unvisited. The first is above the rounding of what is summed: of the sums themselves in float32; in
#: float64 of the activations, which are float32 at best and visit a direction by some 1e-14 where none should.
RIDGES = {
    torch.float32: (0.0, 1e-6, 1e-5, 1e-4, 1e-3),
    torch.float64: (0.0, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3),
}
#: Above this condition substitution loses more than three digits of D: refine float32 in float64.
REFINE_ABOVE = {torch.float32: 1e4, torch.float64: float("inf")}
#: Above this condition a solution says more about rounding than about the candidates: go down the ladder. In float64
#: too: a direction that tokens visit only by the rounding of activations would get weights a thousand times too large.
TRUSTED_CONDITION = {torch.float32: 1e7, torch.float64: 1e9}
#: Above this one substitution itself goes wrong, with a ridge too.
BEARABLE_CONDITION = {torch.float32: 1e7, torch.float64: 1e13}
#: Of the median of the diagonal: an input below it is lost in the rounding of what a linear makes of the others, and to
#: count it would take weights that are larger by as much as it is smaller.
DEAD_INPUT = torch.finfo(torch.float32).eps ** 2
#: The largest relative residual that is still called a solution.
TRUSTED_RESIDUAL = 1e-3
_PROBES = 4


@dataclass(frozen=True, kw_only=True)
class _Factorisation:
    """The one that gives a solution."""

    lower_II: Tensor
    condition: float
    ridge: float
    ridge_I: Tensor  # as it was added to the scaled diagonal
    is_refined: bool


class NormalEquations:
    """ΣĜ and, for every linear of the group, Σ(W − R)Ĝ: what a merge keeps of its candidates, however many.

    One square holds all that is (I, I): ΣG above the diagonal, below it one candidate's G, and later the factor.
    """

    def __init__(
        self, group: str, linears: Mapping[str, tuple[int, int]], *, alpha: float, workspace: Workspace
    ) -> None:
        """`linears` names each linear of the group with its (out, in) features; all share `in`."""
        self.group = group
        self._alpha = alpha
        self._workspace = workspace
        (self._width,) = {in_features for _, in_features in linears.values()}
        square_II = workspace.square_buffer(self._width)
        self._sum = Symmetric(square_II, workspace.zeros(self._width, blocks_width(self._width)))
        self.gram = Gram(Symmetric(square_II.T, workspace.zeros(self._width, blocks_width(self._width))), workspace)
        self._rhs_OI = {name: workspace.zeros(*shape) for name, shape in linears.items()}
        self._num_tokens = 0

    def reset(self) -> None:
        """Forget every candidate; the buffers stay."""
        self._sum.zero()
        for rhs_OI in self._rhs_OI.values():
            rhs_OI.zero_()
        self._num_tokens = 0

    def add(self, own: Mapping[str, Tensor], reference: Mapping[str, Tensor] | None, *, weight: float) -> None:
        """Add one candidate: what `gram` holds, its weights (O, I), and the reference's in the same dtype.

        Without a reference the candidate is the reference itself, and only its Gram matrix is added.
        """
        scale = weight / self.gram.num_tokens
        self.gram.add_to(self._sum, scale)
        self._num_tokens += self.gram.num_tokens
        if reference is None:
            return
        diagonal_I = self.gram.diagonal()
        for name, rhs_OI in self._rhs_OI.items():
            for rows in _panels(rhs_OI.shape[0]):
                delta_PI = self._workspace.get(rows.stop - rows.start, self._width)
                delta_PI.copy_(own[name][rows]).sub_(reference[name][rows])
                self.gram.multiply(delta_PI, rhs_OI[rows], self._alpha * scale)
                rhs_OI[rows].add_(delta_PI.mul_(diagonal_I), alpha=(1 - self._alpha) * scale)

    def solve(self, mean: MeanRows) -> tuple[Mapping[str, Tensor], SolveReport]:
        """SolveReport for D, (O, I) in the sums' dtype for each linear, in this object's own buffers.

        `mean` is asked only where a ridge is needed or an input is dead, which is rare: rather than kept, the mean is
        read again then. What `gram` holds is overwritten by the factorisation.

        Raises:
            SolveError: no ridge in the ladder gives a residual that can be trusted.
        """
        scale_I, unscale_I = self._equilibrate()
        start = Start(mean, unscale_I)
        factorisation = self._factorise(start, self._ridge(scale_I))
        probes = [probe_NO @ rhs_OI for _, probe_NO, rhs_OI in self._probed()]
        for name, rhs_OI in self._rhs_OI.items():
            for rows in _panels(rhs_OI.shape[0], FILTERED_ROWS if factorisation.ridge else PANEL_ROWS):
                start_PI = start.rows(name, rows) if factorisation.ridge else None
                self._solve_panel(rhs_OI[rows], factorisation, start_PI)
        residual = max(
            self._residual(probe_NI, probe_NO @ solution_OI, factorisation)
            for probe_NI, (_, probe_NO, solution_OI) in zip(probes, self._probed(), strict=True)
        )
        if not residual <= TRUSTED_RESIDUAL:
            raise SolveError(f"residual {residual:.1e} with a ridge of {factorisation.ridge:g} of the diagonal")
        dead_I = scale_I == 0
        for name, solution_OI in self._rhs_OI.items():
            solution_OI.mul_(scale_I)
            for rows in _panels(solution_OI.shape[0]) if bool(dead_I.any()) else ():
                solution_OI[rows, dead_I] = mean(name, rows)[:, dead_I]
        return self._rhs_OI, self._report(factorisation, residual, int(dead_I.sum()))

    def _equilibrate(self) -> tuple[Tensor, Tensor]:
        """Apply α and scale the system to a unit diagonal. Returns the scale (0 for a dead input) and its inverse."""
        diagonal_I = self._sum.diagonal()
        tiny = torch.finfo(torch.float32).tiny
        live_I = diagonal_I[diagonal_I > tiny]
        dead_I = diagonal_I <= max(tiny, DEAD_INPUT * float(live_I.median()) if len(live_I) else 0.0)
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

    def _factorise(self, start: Start, unit_ridge_I: Tensor) -> _Factorisation:
        """The factorisation with the first ridge that gives a solution."""
        condition, ridge = float("inf"), 0.0
        for ridge in RIDGES[self._workspace.dtype]:
            # An input may be so small beside the others that it is hardly visited itself.
            ridge_I = (unit_ridge_I * ridge).clamp_(max=1.0)
            self._sum.set_diagonal(1.0 + ridge_I)
            lower_II = cholesky(self._sum)
            if lower_II is None:
                continue
            condition = condition_estimate(self._sum, lower_II)
            if condition > (BEARABLE_CONDITION if ridge else TRUSTED_CONDITION)[self._workspace.dtype]:
                continue
            is_refined = condition > REFINE_ABOVE[self._workspace.dtype]
            factorisation = _Factorisation(
                lower_II=lower_II, condition=condition, ridge=ridge, ridge_I=ridge_I, is_refined=is_refined
            )
            if self._converges(factorisation, start):
                return factorisation
        raise SolveError(f"condition {condition:.1e} even with a ridge of {ridge:g} of the diagonal")

    def _converges(self, factorisation: _Factorisation, start: Start) -> bool:
        """Whether the route holds on a few combinations of the right-hand sides, before any is overwritten."""
        for name, probe_NO, rhs_OI in self._probed():
            rhs_NI = probe_NO @ rhs_OI
            solution_NI = rhs_NI.clone()
            start_NI = start.combined(name, probe_NO) if factorisation.ridge else None
            self._solve_panel(solution_NI, factorisation, start_NI)
            if not self._residual(rhs_NI, solution_NI, factorisation) <= TRUSTED_RESIDUAL:
                return False
        return True

    def _solve_panel(self, rhs_NI: Tensor, factorisation: _Factorisation, start_NI: Tensor | None) -> None:
        """Overwrite rows of right-hand sides by their solutions; with a ridge these begin at `start_NI`."""
        if start_NI is not None:
            correct_rows(self._sum, factorisation.lower_II, factorisation.ridge_I, rhs_NI, start_NI)
        elif not factorisation.is_refined:
            solve_rows(factorisation.lower_II, rhs_NI)
        else:
            refine_rows(self._sum, factorisation.lower_II, rhs_NI)

    def _residual(self, rhs_NI: Tensor, solution_NI: Tensor, factorisation: _Factorisation) -> float:
        """How far a solution is from solving the system without its ridge, relative to the right-hand sides."""
        left_NI = rhs_NI.addcmul(solution_NI, factorisation.ridge_I) if factorisation.ridge else rhs_NI.clone()
        self._sum.multiply(solution_NI, left_NI, -1.0)
        size = float(rhs_NI.norm())
        # Identical candidates have nothing to solve for.
        return float(left_NI.norm()) / size if size else float(left_NI.norm())

    def _probed(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Each linear's right-hand sides (or solutions), behind the same few random combinations of its rows."""
        for name, rhs_OI in self._rhs_OI.items():
            generator = torch.Generator().manual_seed(rhs_OI.shape[0])
            yield name, torch.randn(_PROBES, rhs_OI.shape[0], generator=generator).to(rhs_OI), rhs_OI

    def _report(self, factorisation: _Factorisation, residual: float, num_dead: int) -> SolveReport:
        return SolveReport(
            group=self.group,
            in_features=self._width,
            linears=tuple(self._rhs_OI),
            num_tokens=self._num_tokens,
            route="ridge" if factorisation.ridge else "refined" if factorisation.is_refined else "cholesky",
            condition=factorisation.condition,
            residual=residual,
            ridge=factorisation.ridge,
            dead_inputs=num_dead,
        )


def visited_condition(sums: torch.dtype, tokens: torch.dtype) -> float:
    """The condition above which some directions may be visited by nothing but the rounding of tokens of a dtype.

    Rounding to steps of eps has a variance of eps² / 12. Sums in float32 are taken where α bounds the
    condition, so that every direction is visited.
    """
    if sums == torch.float32:
        return float("inf")
    return min(TRUSTED_CONDITION[sums], 12 / torch.finfo(tokens).eps ** 2)


def _panels(num_rows: int, at_a_time: int | None = None) -> Iterator[slice]:
    at_a_time = at_a_time or PANEL_ROWS
    for start in range(0, num_rows, at_a_time):
        yield slice(start, min(start + at_a_time, num_rows))

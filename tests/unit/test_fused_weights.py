"""Parameters that hold the matrices of many experts: their pieces share memory, and each has tokens of its own."""

import torch
from torch import Tensor, nn

from regstream.device.workspace import Workspace
from regstream.linalg.cholesky_solver import CholeskySolver
from regstream.linalg.normal_equations import NormalEquations
from regstream.models.architecture.fused_weight import FusedWeight
from regstream.models.expert_inputs import expert_inputs
from regstream.models.fused_tensors import join_pieces, split_shapes, whole_shapes, with_pieces

FUSED = FusedWeight(shape=(2, 4, 3), num_experts=2, pieces=("a.gate", "a.up", "b.gate", "b.up"))
CPU = torch.device("cpu")


def test_pieces_are_views_and_are_joined_without_a_copy() -> None:
    whole = torch.arange(24.0).view(2, 4, 3)
    pieces = dict(with_pieces({"f": whole, "other": torch.ones(2)}, {"f": FUSED}))
    assert list(pieces) == [*FUSED.pieces, "other"]
    assert torch.equal(pieces["b.gate"], whole[1, :2])
    again = join_pieces(pieces, {"f": FUSED})
    assert again.keys() == {"f", "other"}
    assert again["f"].data_ptr() == whole.data_ptr()
    assert torch.equal(again["f"], whole)


def test_pieces_that_lie_apart_are_copied_and_incomplete_ones_stay() -> None:
    apart = {name: torch.full((2, 3), float(number)) for number, name in enumerate(FUSED.pieces)}
    assert torch.equal(join_pieces(apart, {"f": FUSED})["f"][1, 2:], apart["b.up"])
    del apart["a.up"]
    assert join_pieces(apart, {"f": FUSED}).keys() == apart.keys()


def test_shapes_go_both_ways() -> None:
    shapes = {"norm": (3,), "f": (2, 4, 3)}
    split = split_shapes(shapes, {"f": FUSED})
    assert split == {"norm": (3,), **dict.fromkeys(FUSED.pieces, (2, 3))}
    assert whole_shapes(split, {"f": FUSED}) == shapes
    assert FUSED.of_expert(1) == ("b.gate", "b.up")


def test_experts_may_be_the_rows_of_one_matrix() -> None:
    fused = FusedWeight(shape=(8, 3), num_experts=4, pieces=("a", "b", "c", "d"))
    whole = torch.arange(24.0).view(8, 3)
    pieces = dict(with_pieces({"f": whole}, {"f": fused}))
    assert torch.equal(pieces["c"], whole[4:6])
    assert torch.equal(join_pieces(pieces, {"f": fused})["f"], whole)
    apart = {name: piece.clone() for name, piece in pieces.items()}
    assert torch.equal(join_pieces(apart, {"f": fused})["f"], whole)


class Experts(nn.Module):
    """Multiplies the first tokens with one expert, or zeros and tokens with all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4, 5))

    def forward(self, x_TI: Tensor) -> Tensor:
        """One expert by `linear`, one by a product from the other side, one with no token."""
        first = nn.functional.linear(x_TI[:2], self.weight[2])
        second = x_TI[2:] @ self.weight[0].T
        third = nn.functional.linear(x_TI[:0], self.weight[1])
        return torch.cat([first, second, third])


class AllExperts(Experts):
    """As Llama 4 does."""

    def forward(self, x_TI: Tensor) -> Tensor:
        """Tokens that are not an expert's are zero."""
        return torch.bmm(x_TI.expand(3, -1, -1) * torch.eye(3)[:, :, None], self.weight.mT)


def test_each_expert_s_tokens_are_reported() -> None:
    x_TI = torch.randn(3, 5)
    for module, expected in (
        (Experts(), {2: x_TI[:2], 0: x_TI[2:]}),
        (AllExperts(), dict(enumerate(torch.split(x_TI, 1)))),
    ):
        seen: dict[int, Tensor] = {}
        with torch.no_grad(), expert_inputs(module, {"weight": seen.__setitem__}):
            module(x_TI)
        assert seen.keys() == expected.keys()
        assert all(torch.equal(seen[expert], expected[expert]) for expert in seen)


class Linears(Experts):
    """Multiplies by `linear` alone."""

    def forward(self, x_TI: Tensor) -> Tensor:
        """One expert."""
        return nn.functional.linear(x_TI, self.weight[2])


def test_a_linear_that_is_one_operation_is_a_product_too() -> None:
    x_TI, module, seen = torch.randn(3, 5), Linears(), dict[int, Tensor]()
    with torch.inference_mode(), expert_inputs(module, {"weight": seen.__setitem__}):  # as on MPS
        module(x_TI)
    assert seen.keys() == {2}
    assert torch.equal(seen[2], x_TI)


def test_a_routed_group_divides_by_the_tokens_it_got_and_is_the_mean_without_any() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(4, 6, generator=generator) for _ in range(2)]
    tokens = [torch.randn(count, 6, generator=generator) for count in (30, 9)]

    def solved(counts: tuple[int, int], *, is_routed: bool, announced: int) -> Tensor:
        solver, workspace = CholeskySolver(alpha=0.9), Workspace(CPU)
        sums = NormalEquations("g", {"w": (4, 6)}, solver=solver, is_routed=is_routed, workspace=workspace)
        for index, (own, x_TI, count) in enumerate(zip(weights, tokens, counts, strict=True)):
            sums.begin_candidate(announced or count)
            if count:
                sums.add_tokens(x_TI[:count])
            sums.add_candidate({"w": own}, None if index == 0 else {"w": weights[0]}, weight=1.0)
        found, report = sums.solve(lambda _name, rows: (weights[1] - weights[0])[rows] / 2)
        assert report.num_tokens == sum(counts)
        return weights[0] + found["w"]

    routed = solved((30, 9), is_routed=True, announced=100)
    assert torch.allclose(routed, solved((30, 9), is_routed=False, announced=0), atol=1e-5)
    alone = solved((30, 0), is_routed=True, announced=100)
    assert torch.allclose(alone, weights[0], atol=1e-4)
    assert torch.allclose(solved((0, 0), is_routed=True, announced=100), (weights[0] + weights[1]) / 2)

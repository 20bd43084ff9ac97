"""The dense reference for any model: the older one where both apply, and what it does with unusual linears."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import dense_any
import reference
from merging import worst_difference
from parametrize import slow
from tiny_merge import TinyMerge, make_tiny_merge
from tiny_models.model import HIDDEN, TinyModel, tiny
from tiny_models.registry import TINY_MODELS

#: Rounding to float32 inside some forward passes, between two ways through the same formula.
ROUNDING = 1e-6


def merge_of(tmp_path: Path, name: str, spread: float = 0.1) -> TinyMerge:
    return make_tiny_merge(tmp_path, TINY_MODELS[name], spread=spread)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "vit", "clip_vision", "gpt_neox"])
def test_it_is_the_reference_of_known_families(tmp_path: Path, name: str) -> None:
    merge = merge_of(tmp_path, name)
    candidates = merge.candidates()
    others = dict.fromkeys(["embeddings", "final_norm", "head"], "average")
    known = reference.merge("regmean++", candidates[0], candidates, merge.rows, others=others)  # type: ignore[arg-type]
    assert worst_difference(merge.expected().tensors, known)[0] < ROUNDING


@pytest.mark.parametrize("name", ["bert", slow("mamba")])
def test_equal_candidates_are_the_result(tmp_path: Path, name: str) -> None:
    merge = merge_of(tmp_path, name, spread=0.0)
    [first, _] = merge.candidates()
    assert worst_difference(merge.expected().tensors, dense_any.tensors_of(first))[0] < ROUNDING


class Halving(nn.Linear):
    """Multiplies half of what it is called with."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return nn.functional.linear(input / 2, self.weight, self.bias)


class Unusual(nn.Module):
    """A block whose linears are read in every way but one."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.halving = nn.Linear(HIDDEN, HIDDEN), Halving(HIDDEN, HIDDEN)
        self.twice, self.unused = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.bypassed, self.both = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.first = nn.Linear(HIDDEN, HIDDEN)

    def forward(self, hidden_states: Tensor) -> Tensor:
        hidden = self.halving(self.plain(hidden_states).tanh())
        hidden = hidden + self.twice(self.twice(hidden)) + hidden @ self.bypassed.weight.T
        hidden = hidden + self.both(hidden) + nn.functional.linear(hidden, self.both.weight)
        return hidden + self.first(hidden[:, 0])[:, None]  # type: ignore[no-any-return]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Unusual(), Unusual()])

    def forward(self, hidden_states: Tensor) -> Tensor:
        for layer in self.layers:
            hidden_states = layer(hidden_states)
        return hidden_states


AVERAGED = dict.fromkeys(["*.twice", "*.unused", "*.bypassed", "*.both", "*.first"], "is read otherwise")


def merge_unusual(averaged: dict[str, str]) -> tuple[TinyModel, dense_any.Merged, list[Model], list[Tensor]]:
    torch.manual_seed(0)
    candidates = [Model().double(), Model().double()]
    inputs = [torch.randn(1, 2 * HIDDEN, HIDDEN, dtype=torch.float64) for _ in candidates]
    model = tiny("unusual", "Model", "layers", {}, averaged=averaged)
    rows = [[{"hidden_states": x_1TD}] for x_1TD in inputs]
    return model, dense_any.merge(model, candidates, rows), candidates, inputs


def test_a_linear_is_regressed_where_its_module_multiplies_each_token_once() -> None:
    _, merged, candidates, inputs = merge_unusual(AVERAGED)
    names = {f"layers.{block}.{linear}.weight" for block in (0, 1) for linear in ("plain", "halving")}
    assert merged.regressed == names
    # What is multiplied is the regression's input, whatever the module was called with.
    with torch.no_grad():
        read = [c.layers[0].plain(x).tanh()[0] / 2 for c, x in zip(candidates, inputs, strict=True)]  # type: ignore[operator]
    weights = [candidate.get_parameter("layers.0.halving.weight").detach() for candidate in candidates]
    grams = [x_TI.T @ x_TI / len(x_TI) for x_TI in read]
    expected = reference.regress(weights, grams, [1.0, 1.0], dense_any.ALPHA)
    torch.testing.assert_close(merged.tensors["layers.0.halving.weight"], expected)


@pytest.mark.parametrize("wrong", [{"*.unused": ""}, AVERAGED | {"*.plain": "is not"}])
def test_it_refuses_to_differ_from_what_is_described(wrong: dict[str, str]) -> None:
    with pytest.raises(AssertionError, match="unusual: not regressed: "):
        merge_unusual(wrong)

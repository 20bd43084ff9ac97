"""Every tensor of every input of every family is used, named in a line, or refused by its name."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import checkpoints
from altered_checkpoints import edited, write_adapter, write_manifest
from parametrize import slow
from regstream.checkpoint.checkpoint import open_checkpoint
from regstream.errors import InputError
from regstream.manifest.read_manifest import read_manifest
from regstream.planning.planning import make_plan

#: Tied weights, fused linears, a body that is the whole model, and a tower whose names have no prefix.
FAMILIES: tuple[checkpoints.Family, ...] = ("llama-tied", "phi3", "bert", "clip-plain")
INPUTS = ("base", "candidate", "model under an adapter")


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A base, a candidate, and an adapter on one linear of its first block."""

    base: Path
    candidate: Path
    adapter: Path
    block: str  # what stands before names of the first block in the candidate's file
    module: str  # the linear

    def with_unknown(self, folder: Path, which: str, name: str) -> Path:
        """The manifest of a merge one of whose inputs holds a tensor that no model of the family has."""

        def bad(source: Path) -> Path:
            return edited(source, folder / source.name, lambda t: t.update({name: torch.ones(3)}))

        if which == "base":
            return write_manifest(folder, bad(self.base), self.candidate)
        if which == "candidate":
            return write_manifest(folder, self.base, bad(self.candidate))
        path = bad(self.candidate)
        return write_manifest(folder, self.base, path, adapters={path.name: self.adapter})


@pytest.fixture(scope="module", params=["gpt2", "clip-full", "olmo2", *map(slow, FAMILIES)])
def inputs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder, family = tmp_path_factory.mktemp("every"), request.param
    made = checkpoints.make_family(folder, family, candidates=1, layers=1, hidden=16)
    manifest = write_manifest(folder, made.base, made.candidates[0])
    described = make_plan(read_manifest(manifest)).base.architecture
    candidate = open_checkpoint("candidate", made.candidates[0], architecture=described)
    linear = f"{described.block_prefix(0)}{described.groups[0][0].linears[0]}.weight"
    rows, columns = candidate.tensors[linear].shape
    out_in = (columns, rows) if described.is_transposed(linear) else (rows, columns)
    module = linear.removesuffix(".weight")
    return Inputs(
        base=made.base,
        candidate=made.candidates[0],
        adapter=write_adapter(folder / "adapter", module, out_in[1], out_in[0]),
        block=candidate.stored_name(linear).partition(".0.")[0] + ".0.",
        module=module,
    )


def outcome(manifest: Path) -> str:
    """What a person reads of a merge before it begins: its refusal, or its warnings."""
    try:
        return "\n".join(make_plan(read_manifest(manifest)).warnings)
    except InputError as error:
        return f"refused: {error}"


def test_nothing_is_said_of_what_is_all_used(inputs: Inputs, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, inputs.base, inputs.candidate)
    told = outcome(manifest)
    assert told == "" or told.endswith("another part of a whole CLIP")


@pytest.mark.parametrize("which", INPUTS)
def test_what_is_unknown_inside_a_block_is_refused_by_name(inputs: Inputs, tmp_path: Path, which: str) -> None:
    name = f"{inputs.block}unheard_of.bias"
    told = outcome(inputs.with_unknown(tmp_path, which, name))
    assert told.startswith("refused: ")
    assert f"tensor {name} is not in the model that config.json describes" in told


@pytest.mark.parametrize("which", INPUTS)
def test_layers_behind_the_models_own_are_refused_by_name(inputs: Inputs, tmp_path: Path, which: str) -> None:
    name = inputs.block.replace(".0.", ".7.") + "unheard_of.weight"
    told = outcome(inputs.with_unknown(tmp_path, which, name))
    assert told.startswith("refused: ")
    assert f"tensor {name} is not in the model that config.json describes, which has 1 layer" in told


@pytest.mark.parametrize("which", INPUTS)
def test_what_is_unknown_outside_the_model_is_named(inputs: Inputs, tmp_path: Path, which: str) -> None:
    told = outcome(inputs.with_unknown(tmp_path, which, "unheard_of_head.weight"))
    label = {"base": "base", "candidate": 'candidate "task0"'}.get(which, f"model {inputs.candidate.name}")
    line = next(line for line in told.splitlines() if "unheard_of_head.weight" in line)
    assert line.startswith(f"{label}: left out: ")


@pytest.mark.parametrize("which", INPUTS)
def test_another_copy_under_an_unknown_prefix_is_refused(inputs: Inputs, tmp_path: Path, which: str) -> None:
    name = f"ema.{inputs.block}{inputs.module.partition('.0.')[2]}.weight"
    told = outcome(inputs.with_unknown(tmp_path, which, name))
    assert name in told


def test_what_an_adapter_holds_for_no_weight_is_refused(inputs: Inputs, tmp_path: Path) -> None:
    name = f"base_model.model.{inputs.module}.unheard_of"
    bad = edited(inputs.adapter, tmp_path / "bad", lambda t: t.update({name: torch.ones(3)}))
    manifest = write_manifest(tmp_path, inputs.base, inputs.candidate, adapters={inputs.candidate.name: bad})
    told = outcome(manifest)
    assert told.startswith('refused: candidate "task0": ')
    assert name in told

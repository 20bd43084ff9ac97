"""Descriptions of architectures that are wrong on purpose: each is told from the right one by running the model."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, LlamaConfig, PreTrainedConfig, RoFormerConfig, XLMConfig

from regstream.errors import InputError
from regstream.manifest.architecture import ArchitectureTable
from regstream.models.architecture.architecture import Architecture, InputGroup
from regstream.models.config.build import build_config
from regstream.models.derivation.block_call import Verifier, WholePass
from regstream.models.derivation.derive import derive_architecture
from regstream.models.derivation.model_inputs import LENGTHS, batch_inputs, token_batch
from regstream.models.derivation.stand_ins import stand_in_parameters
from regstream.models.derivation.trace import run_traced
from regstream.models.derivation.verify import check_stem, misread_linears
from regstream.models.empty_model import empty_model
from regstream.models.layered_model import LayeredModel

FILE = Path("config.json")
SHAPE: dict[str, Any] = {
    "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 97
}  # fmt: skip


@dataclass(frozen=True)
class Watched:
    """A model, what is derived from it, and what passed through it in passes of the whole model."""

    architecture: Architecture
    config: PreTrainedConfig
    parameters: Mapping[str, Tensor]
    passes: list[WholePass]

    @classmethod
    def of(cls, config: PreTrainedConfig) -> Self:
        """The model of a small config."""
        content = config.to_dict()
        architecture, built = derive_architecture(content, FILE), build_config(content, FILE)
        model = empty_model(architecture.model_class, built, torch.float32)
        parameters, passes = stand_in_parameters(model), []
        for lengths in (LENGTHS[:1], LENGTHS[1:], LENGTHS):  # each row alone, then both in a padded batch
            batch = token_batch(model, lengths)
            trace = run_traced(model, parameters, batch_inputs(batch), until=[architecture.blocks])
            passes.append(WholePass.of(batch, trace.members[architecture.blocks]))
        return cls(architecture, built, parameters, passes)

    def layered(self, **changes: Any) -> LayeredModel:
        """Its layers, by a description with some fields changed."""
        described = replace(self.architecture, **changes)
        return LayeredModel(described, self.config, dtype=torch.float32, device=torch.device("cpu"))

    def misread(self, layered: LayeredModel) -> dict[tuple[int, str], str]:
        """Which linears do not read what the description says."""
        return misread_linears(layered, self.parameters, self.passes)

    def check_stem(self, layered: LayeredModel) -> None:
        """Check that the stem alone makes what reaches the blocks."""
        check_stem(layered, self.parameters, batch_inputs(self.passes[0].batch), self.passes[0])

    def verifier(self) -> Verifier:
        """What runs single blocks."""
        return Verifier(self.layered(), self.parameters, self.passes)


@pytest.fixture(scope="module")
def llama() -> Watched:
    return Watched.of(LlamaConfig(**SHAPE))


@pytest.fixture(scope="module")
def gpt2() -> Watched:
    return Watched.of(GPT2Config(n_embd=8, n_layer=2, n_head=2, vocab_size=97))


@pytest.fixture(scope="module")
def roformer() -> Watched:
    return Watched.of(RoFormerConfig(**SHAPE))


def test_right_descriptions_pass(llama: Watched, gpt2: Watched, roformer: Watched) -> None:
    for watched in (llama, gpt2, roformer):
        assert watched.misread(watched.layered()) == {}
        watched.check_stem(watched.layered())
        assert watched.verifier().agrees(watched.architecture.call)


def test_linears_of_one_group_that_read_different_tensors_are_told(llama: Watched) -> None:
    attention, output, mlp, down = llama.architecture.groups[1]
    joined = InputGroup(name="joined", linears=(*attention.linears, *mlp.linears))
    groups = (llama.architecture.groups[0], (joined, output, down))
    expected = {(1, linear): f'"self_attn.q_proj" and "{linear}" do not read the same tensor' for linear in mlp.linears}
    assert llama.misread(llama.layered(groups=groups)) == expected


def test_a_linear_that_reads_another_shape_of_the_same_width_is_told(gpt2: Watched) -> None:
    attention, output, mlp, down = gpt2.architecture.groups[0]
    joined = InputGroup(name="joined", linears=(*attention.linears, *output.linears), transposed=True)
    assert gpt2.misread(gpt2.layered(groups=((joined, mlp, down), gpt2.architecture.groups[1]))) == {
        (0, "attn.c_proj"): '"attn.c_attn" and "attn.c_proj" do not read the same tensor'
    }


@pytest.mark.parametrize("times", [0, 2])
def test_a_linear_that_does_not_run_once_is_told(llama: Watched, times: int) -> None:
    layered = llama.layered()
    for block, runs in zip(layered.blocks, (1, times), strict=True):
        extra = nn.Linear(8, 8, bias=False)

        def run(_: nn.Module, args: Any, extra: nn.Module = extra, runs: int = runs) -> None:
            for _run in range(runs):
                extra(args[0])

        block.add_module("extra", extra)
        block.register_forward_pre_hook(run)
    extra_group = InputGroup(name="extra", linears=("extra",))
    groups = tuple((extra_group, *groups) for groups in llama.architecture.groups)
    layered.architecture = replace(layered.architecture, groups=groups)
    found = llama.misread(layered)
    assert found[1, "extra"] == f'"extra" runs {times} times in a pass'


@pytest.mark.parametrize("moved", ["transformer.wpe", "transformer.wte"])
def test_a_parameter_of_the_stem_that_is_said_to_be_the_heads_is_told(gpt2: Watched, moved: str) -> None:
    parts = dict(gpt2.architecture.parts)
    embeddings = tuple(name for name in parts["embeddings"] if name != moved)
    layered = gpt2.layered(parts={**parts, "embeddings": embeddings, "head": (*parts["head"], moved)})
    with pytest.raises(InputError, match=r"(does not run up to its blocks|what reaches the blocks is made without)"):
        gpt2.check_stem(layered)


def test_a_borrowed_parameter_that_is_left_out_is_told(roformer: Watched) -> None:
    call, verifier = roformer.architecture.call, roformer.verifier()
    assert call.borrowed == ("encoder.embed_positions.weight",)
    left_out = replace(call, borrowed=(), unused=call.unused | set(call.borrowed))
    assert not verifier.agrees(left_out)
    assert verifier.last_problem == "it reads parameters outside the blocks, or the embeddings again"
    assert verifier.agrees(call)


def test_a_body_that_takes_its_input_elsewhere_is_told(llama: Watched) -> None:
    call, verifier = llama.architecture.call, llama.verifier()
    assert not verifier.agrees(replace(call, body="", body_input="input_ids"))
    assert not verifier.agrees(replace(call, hidden_argument=1))


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ("layer_norm1", "the members of layer_norm1 hold no linears"),
        (None, "lists of blocks"),
    ],
)
def test_a_list_that_is_not_of_the_blocks_is_refused(blocks: str | None, expected: str) -> None:
    config: Any = XLMConfig(emb_dim=8, n_layers=2, n_heads=2, vocab_size=97)
    with pytest.raises(InputError, match=expected):
        derive_architecture(config.to_dict(), FILE, table=ArchitectureTable(blocks=blocks), source="merge.toml")

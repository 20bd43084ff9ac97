"""The layered model: stem, one block, or head at a time, equal to the whole model to the last bit."""

import copy
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import checkpoints
from architectures import llama
from regstream.checkpoint.checkpoint import Checkpoint, open_checkpoint
from regstream.errors import InputError
from regstream.models.batch import Batch
from regstream.models.block_wrappers import CaptureInput, InjectHidden, RunBlock, SkipBlock
from regstream.models.config.build import build_config
from regstream.models.derivation.derive import derive_architecture
from regstream.models.layered_model import LayeredModel
from regstream.models.linear_inputs import observe

CPU = torch.device("cpu")
BATCHES = {
    "one row": (19,),
    "rows of one length": (11, 11, 11),
    "padded": (4 * checkpoints.SLIDING_WINDOW, 21, 9, 1),
}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The engine's model of a checkpoint and transformers' own."""

    layered: LayeredModel
    checkpoint: Checkpoint
    whole: nn.Module

    def weights(self, *, block: int | None = None, parts: Sequence[str] = ()) -> dict[str, Tensor]:
        """Weights of a block, or of parts, as read from the files."""
        architecture = self.layered.architecture
        names = [
            name
            for name in self.layered.shapes
            if (architecture.part_of(name) in parts if block is None else architecture.block_of(name) == block)
        ]
        buffers = {name: torch.empty(self.layered.shapes[name], dtype=self.layered.dtype) for name in names}
        self.checkpoint.read(buffers)
        return buffers

    def passed(self, **inputs: Any) -> tuple[list[Tensor], Tensor]:
        """What enters each block and leaves the last in the whole model's own forward, and the logits or the like."""
        states: list[Tensor] = []
        blocks = self.whole.get_submodule(self.layered.architecture.blocks)
        handles = [
            block.register_forward_pre_hook(lambda _, args: states.append(args[0])) for block in blocks.children()
        ]
        handles.append(
            list(blocks.children())[-1].register_forward_hook(
                lambda _module, _args, output: states.append(output if isinstance(output, Tensor) else output[0])
            )
        )
        with torch.no_grad():
            output = self.whole(**inputs)
        for handle in handles:
            handle.remove()
        return states, output[0]


def make_pair(folder: Any, family: checkpoints.Family, dtype: torch.dtype = torch.float32) -> Pair:
    base = checkpoints.make_family(folder, family, candidates=0, dtype=dtype).base
    checkpoint = open_checkpoint("base", base)
    return Pair(
        layered=LayeredModel(checkpoint.architecture, checkpoint.model_config, dtype=dtype, device=CPU),
        checkpoint=checkpoint,
        whole=checkpoints.load(base, dtype),
    )


@pytest.fixture(scope="module", params=[name for name in checkpoints.FAMILIES if name != "clip-plain"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("pair"), request.param)


def inputs_for(pair: Pair, lengths: tuple[int, ...]) -> tuple[dict[str, Tensor], Batch]:
    if pair.layered.architecture.modality == "pixel_values":
        pixels = checkpoints.random_images(len(lengths), seed=0)
        return {"pixel_values": pixels}, Batch((checkpoints.IMAGE_TOKENS,) * len(lengths))
    batch = Batch(lengths)
    (ids,) = checkpoints.random_rows(checkpoints.VOCABULARY, [batch.shape[0] * batch.shape[1]], seed=0)
    mask = batch.attention_mask(CPU)
    inputs = {"input_ids": torch.tensor(ids).view(batch.shape)}
    return inputs | ({} if mask is None else {"attention_mask": mask}), batch


@pytest.mark.parametrize("kind", BATCHES)
def test_stem_and_every_block_are_the_whole_models_to_the_last_bit(pair: Pair, kind: str) -> None:
    inputs, batch = inputs_for(pair, BATCHES[kind])
    states, _ = pair.passed(**inputs)
    with pair.layered.bind_parameters(pair.weights(parts=["embeddings"])):
        assert torch.equal(pair.layered.run_stem(inputs), states[0])
    for index in range(len(pair.layered.blocks)):
        with pair.layered.bind_parameters(pair.weights(block=index)):
            output_BLD = pair.layered.run_block(index, states[index], batch)
        assert torch.equal(output_BLD, states[index + 1]), f"block {index}"


@pytest.mark.parametrize("pair", checkpoints.CAUSAL_FAMILIES, indirect=True)
def test_the_head_is_the_whole_models_at_the_positions_asked_for(pair: Pair) -> None:
    inputs, _ = inputs_for(pair, BATCHES["one row"])
    states, logits_BLV = pair.passed(**inputs)
    weights = pair.weights(parts=["final_norm", "head"] + ["embeddings"] * bool(pair.layered.tied))
    with pair.layered.bind_parameters(weights):
        assert torch.equal(pair.layered.run_head(states[-1], slice(0, 19)), logits_BLV)
        # Fewer rows at a time take another path through the product: equal but for rounding.
        torch.testing.assert_close(pair.layered.run_head(states[-1], slice(4, 7)), logits_BLV[:, 4:7])


def test_parameters_are_those_of_the_whole_model_with_tied_ones_once(pair: Pair) -> None:
    expected = {name: tuple(parameter.shape) for name, parameter in pair.whole.named_parameters()}
    assert pair.layered.shapes == expected
    causal = pair.layered.architecture.is_causal_lm
    (embedding,) = (
        (name for name in expected if name.endswith(("embed_tokens.weight", "wte.weight"))) if causal else ("",)
    )
    is_tied = causal and pair.checkpoint.config["tie_word_embeddings"]
    assert dict(pair.layered.tied) == ({"lm_head.weight": embedding} if is_tied else {})


def parameters(layered: LayeredModel) -> list[nn.Parameter]:
    """Every parameter of the model and of all its blocks, wherever they stand now."""
    roots = [layered.model, *layered.blocks]
    return [parameter for root in roots for parameter in root.parameters()]


def test_weights_are_lent_without_a_copy_and_given_back(pair: Pair) -> None:
    before = [id(parameter) for parameter in parameters(pair.layered)]
    weights = pair.weights(block=1)
    with pair.layered.bind_parameters(weights):
        lent = {parameter.data_ptr() for parameter in parameters(pair.layered) if not parameter.is_meta}
        assert lent == {tensor.data_ptr() for tensor in weights.values()}
    assert [id(parameter) for parameter in parameters(pair.layered)] == before
    assert all(parameter.is_meta for parameter in parameters(pair.layered))


def test_weights_are_given_back_after_an_error(pair: Pair) -> None:
    with pytest.raises(KeyError), pair.layered.bind_parameters(pair.weights(block=0)):
        raise KeyError
    assert all(parameter.is_meta for parameter in parameters(pair.layered))


def test_whatever_stands_in_the_padding_changes_no_token(tmp_path: Any) -> None:
    pair = make_pair(tmp_path, "gemma2")
    batch = Batch((24, 9))
    hidden_BLD = torch.randn(*batch.shape, 32, generator=torch.Generator().manual_seed(0))
    other_BLD = torch.where(batch.mask_BL[..., None], hidden_BLD, 3.0)
    with pair.layered.bind_parameters(pair.weights(block=0)):
        outputs = [batch.pack(pair.layered.run_block(0, states, batch)) for states in (hidden_BLD, other_BLD)]
    assert torch.equal(*outputs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_blocks_in_half_precision_are_the_whole_models_too(tmp_path: Any, dtype: torch.dtype) -> None:
    pair = make_pair(tmp_path, "llama", dtype)
    inputs, batch = inputs_for(pair, BATCHES["padded"])
    states, _ = pair.passed(**inputs)
    with pair.layered.bind_parameters(pair.weights(block=2)):
        assert torch.equal(pair.layered.run_block(2, states[2], batch), states[3])


@pytest.mark.parametrize("ends", [False, True])
def test_hidden_states_go_with_the_pass(tmp_path: Any, ends: bool) -> None:
    pair, batch = make_pair(tmp_path, "llama"), Batch((6, 6))
    hidden_BLD = torch.zeros(*batch.shape, pair.layered.hidden_size)
    gone = weakref.ref(hidden_BLD)
    with (
        pair.layered.bind_parameters(pair.weights(block=0)),
        observe(
            pair.layered.blocks[0], pair.layered.architecture.groups[0], lambda group, x_BLI: None, stop_early=ends
        ),
    ):
        pair.layered.run_block(0, hidden_BLD, batch)
    del hidden_BLD
    assert gone() is None


def test_stand_ins_have_the_attributes_of_the_block_whose_place_they_take() -> None:
    block = nn.Identity()
    call = llama().call
    block.attention_type = "sliding_attention"  # type: ignore[assignment]
    for stand_in in (
        SkipBlock(block, call),
        CaptureInput(block, call),
        RunBlock(block, call, torch.zeros(1), is_last=False),
        InjectHidden(block, call, torch.zeros(1)),
    ):
        assert stand_in.attention_type == "sliding_attention"
        assert list(stand_in.children()) == []


def test_observers_see_each_group_once_a_pass_and_then_no_more(pair: Pair) -> None:
    inputs, batch = inputs_for(pair, (5, 5))
    states, _ = pair.passed(**inputs)
    groups, seen = pair.layered.architecture.groups[1], list[tuple[str, int]]()
    with pair.layered.bind_parameters(pair.weights(block=1)):
        with observe(pair.layered.blocks[1], groups, lambda group, x_BLI: seen.append((group, x_BLI.shape[-1]))):
            pair.layered.run_block(1, states[1], batch)
        pair.layered.run_block(1, states[1], batch)
    block = pair.layered.architecture.block_prefix(1)
    weights = [pair.whole.get_parameter(f"{block}{group.linears[0]}.weight") for group in groups]
    inputs_of = [weight.shape[0 if group.transposed else 1] for group, weight in zip(groups, weights, strict=True)]
    assert seen == [(group.name, in_features) for group, in_features in zip(groups, inputs_of, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("last", range(4))
def test_a_pass_that_ends_early_computes_nothing_after_the_last_groups_input(pair: Pair, last: int) -> None:
    inputs, batch = inputs_for(pair, (5, 5))
    states, _ = pair.passed(**inputs)
    groups, seen, ran = pair.layered.architecture.groups[1][last : last + 1], list[Tensor](), list[str]()
    block = pair.layered.blocks[1]
    handles = [
        block.get_submodule(linear).register_forward_hook(lambda *_, name=linear: ran.append(name))
        for group in pair.layered.architecture.groups[1]
        for linear in group.linears
    ]
    with (
        pair.layered.bind_parameters(pair.weights(block=1)),
        observe(block, groups, lambda group, x_BLI: seen.append(x_BLI), stop_early=True),
    ):
        for _ in range(2):
            assert pair.layered.run_block(1, states[1], batch) is seen[-1]
    for handle in handles:
        handle.remove()
    assert len(seen) == 2
    before = [linear for group in pair.layered.architecture.groups[1][:last] for linear in group.linears]
    assert sorted(ran) == sorted(2 * before)


@pytest.mark.parametrize("value", ["many", 0, -1, [3], 7.5])
@pytest.mark.parametrize("key", ["num_attention_heads", "hidden_size"])
def test_a_config_that_makes_no_model_is_refused_in_one_line(key: str, value: object) -> None:
    config = {"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1, key: value}
    with pytest.raises(
        InputError, match=r"config.json(: not a valid config of| describes no LlamaForCausalLM)"
    ) as caught:
        derive_architecture(config, Path("config.json"))
    assert "\n" not in str(caught.value)


def test_a_config_stays_as_it_was_read() -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config = {
        "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 32,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64, "rope_theta": 500000.0,
        "rope_scaling": scaling | {"original_max_position_embeddings": 32},
    }  # fmt: skip
    before = copy.deepcopy(config)
    file = Path("config.json")
    architecture = derive_architecture(config, file)
    layered = LayeredModel(architecture, build_config(config, file), dtype=torch.float32, device=CPU)
    assert layered.model.config.rope_parameters["rope_theta"] == 500000.0
    assert config == before

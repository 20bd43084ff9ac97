"""How a block runs alone: found by trying, and verified against the pass of the whole model.

Shape suffixes: B rows, L positions, D features.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from regstream.errors import InputError
from regstream.models.architecture.architecture import BlockCall
from regstream.models.batch import Batch
from regstream.models.body_arguments import BodyArguments
from regstream.models.chunked_activation import chunk_activations, restore_activations
from regstream.models.derivation.stand_ins import StandIns
from regstream.models.derivation.trace import MemberCall
from regstream.models.layered_model import LayeredModel

#: Rounding of attention with a mask and without.
TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class WholePass:
    """What entered each block of a stack, and what left the last, as the whole model ran a batch."""

    batch: Batch
    states: Sequence[Tensor]  # (B, L, D) each
    stack: int = 0
    first: int = 0  # the number of the stack's first block
    batches: Sequence[Batch] = ()  # of the stacks before
    arguments: Mapping[str, BodyArguments] = field(default_factory=dict)  # by body; of a stack after the first

    @classmethod
    def of(cls, batch: Batch, calls: Sequence[MemberCall], **fields: Any) -> "WholePass":
        """Of the calls of the blocks in a trace."""
        states = [call.hidden for call in calls] + [calls[-1].output_hidden]
        return cls(batch=batch, states=[state for state in states if state is not None], **fields)

    def batch_of(self, stack: int) -> Batch:
        """What its own stack ran, or one before."""
        return self.batch if stack == self.stack else self.batches[stack]


def find_block_call(
    model: LayeredModel,
    parameters: Mapping[str, Tensor],
    passes: Sequence[WholePass],
    once: frozenset[str],
    chosen_body: str | None = None,
) -> BlockCall:
    """The innermost body that runs each block of a stack as the whole model does, with as few other parameters as
    possible.

    `once` are the modules that the whole pass called once; `chosen_body` is the only one to try.

    Raises:
        InputError: no body does.
    """
    stack = passes[0].stack
    options = [call for call in _options(model, once, stack) if chosen_body in (None, call.body)]
    if chosen_body is not None and not options:
        blocks = model.architecture.stacks[stack].blocks
        raise InputError(
            f"expected a module that holds the blocks {blocks}, runs once in a pass, and takes"
            f' hidden states or the model\'s own input; found "{chosen_body}"'
        )
    if not options:
        raise InputError(
            f"the module that runs {model.architecture.stacks[stack].blocks} reads {model.architecture.modality} and"
            " takes no hidden states; its blocks cannot be merged one by one"
        )
    verifier = Verifier(model, parameters, passes)
    for call in _calls(options, model, parameters, stack):
        if verifier.agrees(call):
            return _activations(model, verifier, verifier.with_fewest(call))
    raise InputError(
        f"block {verifier.worst_block} computes something else alone than in the whole model"
        f" ({verifier.last_problem}); blocks that pass more than hidden states to each other cannot be merged one by"
        " one"
    )


@dataclass(frozen=True, kw_only=True)
class BlockRun:
    """What a block gave alone, and the values of its largest activation."""

    output_BLD: Tensor
    max_values: int


def run_block_alone(
    model: LayeredModel,
    index: int,
    parameters: Mapping[str, Tensor],
    whole: WholePass,
    *,
    arguments: BodyArguments | None = None,
    on_use: Callable[[str], object] = lambda _name: None,
) -> BlockRun:
    """Run a block on what entered it in a whole pass, with stand-in parameters. Raises whatever its forward raises."""
    bound = {name: parameters[name] for name in model.whole_parameters_of_block(index)}
    if arguments is None and whole.stack:
        arguments = whole.arguments[model.architecture.call_of(index).body]
    with model.bind_parameters(bound), StandIns(bound, on_use=on_use, unknown=model.placeholders) as stand_ins:
        output_BLD = model.run_block(index, whole.states[index - whole.first], whole.batch, arguments)
    return BlockRun(output_BLD=output_BLD, max_values=stand_ins.max_values)


def first_line(error: Exception) -> str:
    """An error of a model's code, short enough for a message."""
    return f"{type(error).__name__}: {error}".split("\n")[0][:200]


def hidden_argument(calls: Sequence[MemberCall]) -> int | str:
    """Where blocks take their hidden states: the position or the name of an argument."""
    arguments = {call.argument for call in calls}
    (argument,) = arguments if len(arguments) == 1 else (None,)
    if argument is None:
        raise InputError("its blocks take hidden states in different arguments, which is not supported")
    return argument


def num_outputs(calls: Sequence[MemberCall]) -> int | None:
    """How many values blocks return; None where it is a tensor alone."""
    lengths = {len(call.output) if isinstance(call.output, tuple | list) else None for call in calls}
    if len(lengths) > 1:
        raise InputError("its blocks return different numbers of values, which is not supported")
    return lengths.pop()


def _options(model: LayeredModel, once: frozenset[str], stack: int) -> Iterator[BlockCall]:
    modality = model.architecture.modality
    for body in bodies_of(model.architecture.stacks[stack].blocks):
        arguments = signature(model.model.get_submodule(body).forward).parameters
        inputs = ("inputs_embeds", "hidden_states", *(() if stack else (modality,)))
        for name in dict.fromkeys(inputs) if body in once else ():
            if name not in arguments or name == "input_values":  # hidden states do not tell how long a sound was
                continue
            call = replace(model.architecture.stacks[stack].call, body=body, body_input=name)
            if name == modality and not model.architecture.reads_tokens:
                yield replace(call, is_shapeless=True)
            yield call


def bodies_of(blocks: str) -> Iterator[str]:
    """The modules that hold a list of blocks, the innermost first; "" is the model itself."""
    body = blocks
    while body:
        body = body.rpartition(".")[0]
        yield body


def _calls(
    options: Sequence[BlockCall], model: LayeredModel, parameters: Iterable[str], stack: int
) -> Iterator[BlockCall]:
    """Each option with no parameter of other steps, with all that are outside the blocks, and where blocks return more
    than hidden states with what the first one passes on, which may depend on its parameters."""
    architecture = model.architecture
    outside = tuple(name for name in parameters if architecture.block_of(name) is None)
    for option in options:
        # An image on the meta device goes through a stem on the meta device: shapes are all that is computed.
        yield replace(option, unused=frozenset(() if option.is_shapeless else outside))
    for option in options:
        yield replace(option, borrowed=outside)
    first = tuple(name for name in parameters if architecture.block_of(name) == architecture.first_block(stack))
    for option in options if (options and (options[0].num_outputs or 0) > 1) else ():
        yield replace(option, borrowed=(*outside, *first), passes_on=True)


class Verifier:
    """Runs single blocks and compares what leaves them with the whole pass."""

    def __init__(self, model: LayeredModel, parameters: Mapping[str, Tensor], passes: Sequence[WholePass]) -> None:
        self._model, self._parameters, self._passes = model, parameters, passes
        self.stack, self._first = passes[0].stack, passes[0].first
        self._used: set[str] = set()
        self.worst_block, self.last_problem = 0, "it does not run"

    def agrees(self, call: BlockCall, *, num_passes: int | None = None) -> bool:
        """Whether every block gives what it gave in the whole model, in all passes or the first `num_passes`."""
        self._model.set_block_call(call, self.stack)
        self._used = set()
        for index in range(self._first, self._first + self._model.architecture.stacks[self.stack].num_blocks):
            for whole in self._passes[:num_passes]:
                problem = self._problem(index, whole)
                if problem is not None:
                    if index >= self.worst_block:
                        self.worst_block, self.last_problem = index, problem
                    return False
        return True

    def with_fewest(self, call: BlockCall) -> BlockCall:
        """A call that just agreed, with only those parameters that it reads; borrowed are those that change it."""
        read = frozenset(self._used)
        if not call.borrowed:
            return replace(call, unused=call.unused & read)
        borrowed = [name for name in call.borrowed if name in read]
        call = replace(call, borrowed=tuple(borrowed), unused=frozenset())
        for name in borrowed:
            fewer = tuple(other for other in call.borrowed if other != name)
            without = replace(call, borrowed=fewer, unused=call.unused | {name})
            call = without if self.agrees(without) else call
        return call

    def _problem(self, index: int, whole: WholePass) -> str | None:
        try:
            output_BLD = run_block_alone(self._model, index, self._parameters, whole, on_use=self._used.add).output_BLD
        except Exception as error:  # a forward may raise anything when it is run in a way that does not fit it
            return first_line(error)
        expected_BLD = whole.states[index - whole.first + 1]
        if not isinstance(output_BLD, Tensor) or output_BLD.shape != expected_BLD.shape:
            return "other shapes"
        output_TD, expected_TD = whole.batch.pack(output_BLD), whole.batch.pack(expected_BLD)
        if output_TD.isnan().any():
            return "it reads parameters outside the blocks, or the embeddings again"
        difference = (output_TD - expected_TD).norm() / expected_TD.norm().clamp_min(1e-12)
        return None if difference <= TOLERANCE else f"relative difference {difference:.1e}"


def _activations(model: LayeredModel, verifier: Verifier, call: BlockCall) -> BlockCall:
    """The call, with activation functions in place where that changes nothing."""
    blocks = model.blocks_of(verifier.stack)
    for block in blocks:
        chunk_activations(block)
    in_place = verifier.agrees(call, num_passes=1)
    for block in blocks:
        restore_activations(block)
    return replace(call, activates_in_place=in_place)


def mixes_rows(padded: WholePass, rows: Sequence[WholePass]) -> bool:
    """Whether a row in a padded batch gives something else than alone."""
    for together_BLD, *alone in zip(padded.states, *(whole.states for whole in rows), strict=True):
        for row, (alone_1LD, length) in enumerate(zip(alone, padded.batch.lengths, strict=True)):
            own_LD = together_BLD[row, :length]
            if not torch.allclose(own_LD, alone_1LD[0], rtol=TOLERANCE, atol=TOLERANCE * float(own_LD.abs().max())):
                return True
    return False

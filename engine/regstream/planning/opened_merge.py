"""A merge with everything that its manifest names opened and validated, and its steps."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Self

import torch

from regstream.checkpoint.adapted_checkpoint import AdaptedCheckpoint
from regstream.checkpoint.checkpoint import Checkpoint
from regstream.checkpoint.shared_checkpoint import SharedCheckpoint
from regstream.data.batch_range import BatchRange, Rows, stack_batches
from regstream.data.loading import CalibrationSet
from regstream.hub.fetch import is_cached
from regstream.hub.prefetcher import ShardPrefetcher
from regstream.manifest.schema import Manifest
from regstream.methods.method import Method
from regstream.methods.stream import Prefix, Stream
from regstream.models.batch import Batch
from regstream.models.layered_model import LayeredModel
from regstream.planning.forward_memory import ForwardMemory
from regstream.planning.result_tokenizer import ResultTokenizer
from regstream.planning.step import PlannedParameter, Step
from regstream.planning.unchanged_inputs import Signatures
from regstream.ranks.environment import ALONE, RankId
from regstream.storage.run_folder import HIDDEN_STATES, RunFolder, workdir_of_rank
from regstream.storage.shards import ShardPart, layout_parts
from regstream.validation.ties import Tie


@dataclass(frozen=True)
class PlannedCandidate:
    """A candidate, opened. `calibration` is None where the method needs none.

    `part` has the numbers of the batches that a rank has of it; None: all of them.
    """

    name: str
    checkpoint: Checkpoint
    calibration: CalibrationSet | None
    part: range | None = None

    @cached_property
    def rows(self) -> Rows:
        """Its calibration set, or what a rank has of it."""
        assert self.calibration is not None
        return self.calibration if self.part is None else BatchRange(self.calibration, self.part)

    def batches(self, stack: int) -> Sequence[Batch]:
        """Of its rows, as a stack reads them."""
        return stack_batches(self.rows, stack)

    def num_tokens(self, stack: int) -> int:
        """Of the whole calibration set, as a stack reads it."""
        assert self.calibration is not None
        return sum(batch.num_tokens for batch in stack_batches(self.calibration, stack))

    def first_token(self, stack: int) -> int:
        """How many tokens of the whole set come before those here."""
        return self.rows.first_token(stack) if isinstance(self.rows, BatchRange) else 0


@dataclass(frozen=True, kw_only=True)
class OpenedMerge:
    """An opened merge, without its costs."""

    manifest: Manifest
    method: Method  # what is the same for all parameters; each has its own, with the numbers that it is merged with
    base: Checkpoint
    candidates: tuple[PlannedCandidate, ...]
    prior_model: Checkpoint | None
    tokenizer: ResultTokenizer
    commits: Mapping[str, str]  # of repositories of the hub, by their name in the manifest
    prefetcher: ShardPrefetcher
    model: LayeredModel
    steps: tuple[Step, ...]
    compute_dtype: torch.dtype  # of weights and activations while merging
    exact_dtype: torch.dtype  # the narrowest that holds every weight of all inputs exactly
    output_dtype: torch.dtype
    device: torch.device
    warnings: tuple[str, ...]
    ignored: Mapping[str, Sequence[str]]  # names of tensors that the result lacks, by the label of their checkpoint
    input_signatures: Signatures  # read before anything was opened
    ties: tuple[Tie, ...]  # of files still to be downloaded, compared before the first step
    rank_id: RankId = ALONE
    whole: Self | None = None  # of all ranks, where this is what one of them runs
    holders: tuple[tuple[int, ...], ...] = ()  # of each candidate, the ranks that have batches of it

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """All that a run reads weights from."""
        prior = () if self.prior_model is None else (self.prior_model,)
        return (self.base, *(candidate.checkpoint for candidate in self.candidates), *prior)

    @cached_property
    def methods(self) -> frozenset[Method]:
        """The method, and those with other numbers that solve for something."""
        solved = (parameter for step in self.steps for parameter in step.parameters if parameter.group is not None)
        return frozenset({self.method, *(parameter.method for parameter in solved)})

    @property
    def output(self) -> Path:
        """The folder of the result."""
        return self.manifest.merge.output

    @property
    def state(self) -> Path:
        """The folder within the output for the lock and for files that are incomplete."""
        return self.manifest.state

    @property
    def run_folder(self) -> RunFolder:
        """The folder of the run's state, which removes only files that a run makes."""
        return RunFolder(self.workdir, self.output)

    @property
    def workdir(self) -> Path:
        """The folder of the run's state, or of what a rank but the first has of it."""
        return workdir_of_rank(self.manifest.workdir, self.rank_id.rank)

    @property
    def hidden_folders(self) -> dict[Prefix, Path]:
        """Where the hidden states of each kind that the method needs are stored."""
        names = [HIDDEN_STATES[0], *(f"{HIDDEN_STATES[0]}-{prefix}" for prefix in self.method.prefixes()[1:])]
        return {prefix: self.workdir / name for prefix, name in zip(self.method.prefixes(), names, strict=False)}

    @property
    def stores_group_inputs(self) -> bool:
        """Whether passes over a block store inputs of its linears, from which later passes begin.

        They do not on an accelerator, which multiplies again sooner than a disk gives back: of a block at 8B width, the
        inputs of 2,048 tokens take 92 MB, and all of its products of them 0.9 TFLOP.
        """
        return self.method.solves_groups_in_turn() and self.device.type == "cpu"

    @property
    def has_diagnostics(self) -> bool:
        """Whether steps compute what became of each candidate's difference from the base, for the record."""
        return self.manifest.resources.diagnostics and self.manifest.merge.base is not None

    @property
    def batches(self) -> list[Batch]:
        """The batches of all calibration sets; none where the method needs no calibration sets."""
        return [batch for candidate in self.calibrated for batch in candidate.rows.batches]

    @property
    def all_batches(self) -> list[Batch]:
        """Those batches, and their targets where rows have any."""
        return [*self.batches, *(batch for candidate in self.calibrated for batch in candidate.rows.targets)]

    @property
    def num_tokens(self) -> int:
        """The tokens of all calibration sets, of inputs and targets."""
        return sum(batch.num_tokens for batch in self.all_batches)

    def batches_of(self, stack: int) -> list[Batch]:
        """The batches of all calibration sets, as a stack reads them."""
        return [batch for candidate in self.calibrated for batch in candidate.batches(stack)]

    @property
    def calibrated(self) -> list[PlannedCandidate]:
        """The candidates with batches here: all that calibrate, but for what is on other ranks alone."""
        return [c for c in self.candidates if c.calibration is not None and c.rows.batches]

    def has_batches(self, candidate: PlannedCandidate) -> bool:
        """Whether this rank loads a candidate's blocks: the only rank of a run, all; another, where it has batches."""
        return self.rank_id.size == 1 or candidate.part is None or bool(candidate.part)

    @cached_property
    def shared(self) -> SharedCheckpoint | None:
        """The model that every candidate is an adapter on, if there is one: the reference R of all differences."""
        checkpoints = [candidate.checkpoint for candidate in self.candidates]
        models = {c.model if isinstance(c, AdaptedCheckpoint) else c for c in checkpoints}
        (model,) = models if len(models) == 1 else (None,)
        return model if isinstance(model, SharedCheckpoint) else None

    @cached_property
    def forward_memory(self) -> ForwardMemory:
        """What the forward pass of a calibration set takes."""
        rows = [candidate.rows for candidate in self.calibrated]
        return ForwardMemory(model=self.model, rows=rows, dtype=self.compute_dtype, device=self.device)

    @cached_property
    def fetches(self) -> bool:
        """Whether shards of its checkpoints are still to be downloaded."""
        paths = [path for checkpoint in self.checkpoints for path in checkpoint.files]
        return any(not is_cached(file) for path in paths if (file := self.prefetcher.hub_file(path)) is not None)

    def combines(self, parameter: PlannedParameter) -> bool:
        """Whether the method's own formula gives a parameter, of the result or of the block as it combines it."""
        is_student = parameter.group is not None and Stream.COMBINED_BLOCK in self.method.streams
        return parameter.rule == "combine" or is_student

    def formulas(self, step: Step) -> Iterator[tuple[Method, PlannedParameter]]:
        """What of a step's parameters the method's own formula gives, or its prior's, each with its method.

        Of what is not solved for, ranks but the first need only what a merged block that they run consists of.
        """
        is_filled = bool(step.regressed) and not self.method.runs_own_blocks_only()
        for parameter in step.parameters:
            is_needed = self.rank_id.rank == 0 or is_filled or parameter.group is not None
            if is_needed and self.combines(parameter):
                yield parameter.method, parameter
            if parameter.group is not None and (prior := parameter.method.prior) is not None:
                yield prior, parameter

    @cached_property
    def parts(self) -> tuple[ShardPart, ...]:
        """What each step writes of which shard, in the order of the steps."""
        return tuple(
            part
            for shard, steps in groupby(self.steps, key=lambda step: step.shard)
            for part in layout_parts(
                shard,
                [{p.stored_name: p.stored_shape or p.shape for p in step.parameters} for step in steps],
                self.output_dtype,
            )
        )

    def written_bytes(self, step: Step) -> int:
        """What a step adds to its shard."""
        return self.parts[step.index].num_bytes

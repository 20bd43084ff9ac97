"""What is merged: everything that a manifest names, opened and found to belong together, and the steps it takes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Self

import torch

from regstream.checkpoint.adapted import AdaptedCheckpoint
from regstream.checkpoint.checkpoint import Checkpoint
from regstream.checkpoint.header import TensorSpec
from regstream.checkpoint.reader import TensorReader
from regstream.checkpoint.shared import SharedCheckpoint
from regstream.data.loading import CalibrationSet
from regstream.hub.fetch import is_cached
from regstream.hub.prefetcher import ShardPrefetcher
from regstream.manifest.schema import Candidate, Manifest
from regstream.methods.method import Method, Prefix
from regstream.models.layered_model import LayeredModel
from regstream.plan.step import Step
from regstream.storage.run_folder import HIDDEN_STATES, RunFolder
from regstream.storage.shards import ShardPart, layout_parts
from regstream.validation.ties import Tie


@dataclass(frozen=True, kw_only=True)
class PlannedCandidate:
    """A candidate, opened. `calibration` is None where the method needs none.

    `share` is its weight over the mean of all candidates' weights.
    """

    name: str
    share: float
    checkpoint: Checkpoint
    calibration: CalibrationSet | None

    @classmethod
    def of(cls, candidate: Candidate, share: float, checkpoint: Checkpoint, calibration: CalibrationSet | None) -> Self:
        """What a manifest names, opened."""
        return cls(name=candidate.name, share=share, checkpoint=checkpoint, calibration=calibration)

    @property
    def rows(self) -> CalibrationSet:
        """Its calibration set."""
        assert self.calibration is not None
        return self.calibration


@dataclass(frozen=True, kw_only=True)
class Job:
    """A merge, opened; what it takes is not yet known."""

    manifest: Manifest
    method: Method
    base: Checkpoint
    candidates: tuple[PlannedCandidate, ...]
    commits: Mapping[str, str]  # of the hub's repositories, by how the manifest names them
    prefetcher: ShardPrefetcher
    model: LayeredModel
    steps: tuple[Step, ...]
    compute_dtype: torch.dtype  # of weights and activations while merging
    output_dtype: torch.dtype
    device: torch.device
    warnings: tuple[str, ...]
    ignored: Mapping[str, Sequence[str]]  # names of tensors that the result does without, by their checkpoint's label
    ties: tuple[Tie, ...]  # to be compared before the first step: not all of their files are there yet

    @property
    def shares(self) -> tuple[float, ...]:
        """The candidates' shares, whose mean is 1."""
        return tuple(candidate.share for candidate in self.candidates)

    @property
    def output(self) -> Path:
        """The folder of the result."""
        return self.manifest.merge.output

    @property
    def state(self) -> Path:
        """The folder in the output in which files are written before they have their names."""
        return self.manifest.state

    @property
    def run_folder(self) -> RunFolder:
        """The folder of the run's state, as one that is told from a person's own."""
        return RunFolder(self.workdir, self.output)

    @property
    def workdir(self) -> Path:
        """The folder of the run's state."""
        return self.manifest.workdir

    @property
    def hidden_folders(self) -> dict[Prefix, Path]:
        """Where the hidden states of each kind that the method needs are stored."""
        first, *others = HIDDEN_STATES[0], *(f"{HIDDEN_STATES[0]}-{prefix}" for prefix in self.method.prefixes()[1:])
        names = zip(self.method.prefixes(), (first, *others), strict=False)
        return {prefix: self.workdir / name for prefix, name in names}

    @cached_property
    def shared(self) -> SharedCheckpoint | None:
        """The model that every candidate is an adapter on, if there is one: the reference of all differences."""
        checkpoints = [candidate.checkpoint for candidate in self.candidates]
        models = {c.model if isinstance(c, AdaptedCheckpoint) else c for c in checkpoints}
        (model,) = models if len(models) == 1 else (None,)
        return model if isinstance(model, SharedCheckpoint) else None

    @cached_property
    def fetches(self) -> bool:
        """Whether shards of its checkpoints are still on the hub."""
        paths = [path for c in (self.base, *(c.checkpoint for c in self.candidates)) for path in c.files]
        return any(not is_cached(file) for path in paths if (file := self.prefetcher.hub_file(path)) is not None)

    def reads(self, step: Step, num_passes: int = 1) -> Iterator[list[TensorSpec]]:
        """What a step reads, reader by reader, in about its order; once a pass what candidates share."""
        for checkpoint, *tied in self.ties if step.index == 0 else ():
            yield [checkpoint.tensors[name] for name in tied]
        is_loaded = bool(step.regressed or (step.needs_forward and "own" in self.method.prefixes()))
        names = [tensor.name for tensor in step.parameters if is_loaded or tensor.rule != "base"]
        of_base = [tensor.name for tensor in step.parameters if tensor.rule in ("base", "combine")]
        is_kept = bool(step.regressed) or not is_loaded
        for index in range(num_passes):
            known: set[tuple[TensorReader, str]] = set()
            wanted: list[tuple[Checkpoint, list[str]]] = [(c.checkpoint, names) for c in self.candidates]
            if self.shared is not None and step.regressed:
                wanted.insert(0, (self.shared, names))
            wanted += [(self.base, of_base)] if index == num_passes - 1 else []
            for checkpoint, read in wanted:
                for reader, stored in checkpoint.locate(read):
                    yield [reader.tensors[name] for name in stored if (reader, name) not in known]
                    if is_kept and isinstance(reader, SharedCheckpoint):
                        known.update((reader, name) for name in stored)

    @cached_property
    def parts(self) -> tuple[ShardPart, ...]:
        """What each step writes of which shard, in the order of the steps."""
        return tuple(
            part
            for shard, steps in groupby(self.steps, key=lambda step: step.shard)
            for part in layout_parts(
                shard, [{p.stored_name: p.shape for p in step.parameters} for step in steps], self.output_dtype
            )
        )

    def written_bytes(self, step: Step) -> int:
        """What a step adds to its shard."""
        return self.parts[step.index].num_bytes

"""From a manifest to a plan: configs and headers are read, samples of weights, rows tokenized; nothing is written."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch

from regstream.checkpoint.adapted import AdaptedCheckpoint
from regstream.checkpoint.checkpoint import Checkpoint
from regstream.checkpoint.loader import CheckpointLoader
from regstream.data.dataset_sampler import DatasetSampler
from regstream.data.loading import CalibrationSet, load_calibration
from regstream.device import malloc, memory
from regstream.errors import InputError, ManifestError
from regstream.events import Listener, Warned, ignore
from regstream.manifest.schema import Candidate, Manifest
from regstream.methods import make_method
from regstream.methods.method import Method
from regstream.models.architecture.modules import family_from_manifest
from regstream.models.layered_model import LayeredModel
from regstream.plan.device import choose_device
from regstream.plan.discarded_changes import discarded_changes
from regstream.plan.job import PlannedCandidate
from regstream.plan.layout import make_steps
from regstream.plan.plan import Plan
from regstream.plan.step import Step
from regstream.plan.unused_settings import unused_settings
from regstream.plan.warmup import warm_up
from regstream.validation.inputs import ValidatedInputs, check_inputs, output_dtype
from regstream.validation.summaries import merge_warnings


def make_plan(
    manifest: Manifest,
    *,
    device: str | None = None,
    for_this_machine: bool = True,
    commits: Mapping[str, str] | None = None,
    listener: Listener = ignore,
) -> Plan:
    """Open everything that a manifest names, check that it belongs together, and lay out the steps.

    `device` overrides the manifest's own.
    Not for this machine, a plan may be for a device that is not here; it can be looked at, and not be run. `commits`
    are those that an earlier run settled on for models of the hub; others are taken as they stand now.

    Raises:
        ManifestError: a rule fits no parameter, the model is not as [architecture] says, or the device is not there.
        InputError: a checkpoint or a calibration set cannot be used, or the hub does not give one.
    """
    malloc.trim()
    warnings = _Warnings(listener)
    chosen = _device(manifest, device, must_exist=for_this_machine)
    method = make_method(manifest.merge.method, manifest.merge.options)
    opening = CheckpointLoader(manifest, commits or {}, listener)
    described = (
        None
        if manifest.architecture is None
        else partial(family_from_manifest, manifest.architecture, source=manifest.source)
    )
    base = opening.open_base(described)
    opened = [opening.open_candidate(candidate) for candidate in manifest.candidates]
    needed, sampler = bool(method.streams), DatasetSampler(commits, listener)
    device_here = chosen if memory.is_there(chosen) else torch.device("cpu")
    labels = [c.label for c in (base, *opened, *(c.model for c in opened if isinstance(c, AdaptedCheckpoint)))]
    with warnings.joined(labels) as warn:
        inputs = check_inputs(
            manifest, base, opened, device_here, source=manifest.source, is_regressed=needed, warn=warn
        )
    sets = _calibration_sets(manifest, base, inputs.model, sampler, warnings.add) if needed else [None] * len(opened)
    result_dtype = output_dtype(manifest, base, inputs, warnings.add)
    try:
        steps = _steps(manifest, method, base, inputs, result_dtype.itemsize)
    except ManifestError as error:
        raise ManifestError([f"{manifest.source}: {problem}" for problem in error.problems]) from error
    warnings.extend(unused_settings(manifest, base.family, chosen.type, steps, tuple(inputs.model.shapes)))
    warnings.extend(merge_warnings(discarded_changes(manifest, base, opened, steps), labels))
    return Plan(
        manifest=manifest,
        method=method,
        base=base,
        candidates=tuple(map(PlannedCandidate.of, manifest.candidates, manifest.shares, opened, sets)),
        commits=opening.commits | sampler.commits,
        prefetcher=opening.prefetcher,
        model=inputs.model,
        steps=steps,
        compute_dtype=inputs.compute_dtype,
        output_dtype=result_dtype,
        device=chosen,
        warnings=tuple(warnings.lines),
        left_out=inputs.ignored,
        ties=inputs.ties,
        runtime_bytes=_held_bytes(method, inputs.compute_dtype, device_here),
    )


def _device(manifest: Manifest, device: str | None, *, must_exist: bool) -> torch.device:
    chosen = choose_device(device or manifest.resources.device, must_exist=must_exist)
    if not memory.is_there(chosen) and manifest.resources.device_memory is None:
        raise ManifestError(f'{manifest.source}: device "{chosen}" is not here; give its device_memory in [resources]')
    return chosen


def _steps(
    manifest: Manifest, method: Method, base: Checkpoint, inputs: ValidatedInputs, itemsize: int
) -> tuple[Step, ...]:
    model = inputs.model
    return make_steps(
        manifest, method, model.family, model.shapes, itemsize, carried=inputs.carried, stored_name=base.stored_name
    )


def _held_bytes(method: Method, dtype: torch.dtype, device: torch.device) -> int:
    if method.streams:
        warm_up(method, dtype, device)
    malloc.trim()  # what opening and tokenizing left behind is not needed any more
    return memory.resident_bytes()


class _Warnings:
    """What a person should know, kept for the record and handed to a listener as it comes."""

    def __init__(self, listener: Listener) -> None:
        self.lines: list[str] = []
        self._listener = listener

    def add(self, line: str) -> None:
        """Say one line."""
        self.lines.append(line)
        self._listener(Warned(message=line))

    def extend(self, lines: Iterable[str]) -> None:
        """Say several."""
        for line in lines:
            self.add(line)

    @contextmanager
    def joined(self, labels: Sequence[str]) -> Iterator[Callable[[str], None]]:
        """Say what is collected within the context, whatever ends it: in one line where several checkpoints agree."""
        found: list[str] = []
        try:
            yield found.append
        finally:
            self.extend(merge_warnings(found, labels))


def _calibration_sets(
    manifest: Manifest, base: Checkpoint, model: LayeredModel, sampler: DatasetSampler, warn: Callable[[str], None]
) -> list[CalibrationSet]:
    return [
        _calibration(candidate, base=base, model=model, seed=manifest.merge.seed, warn=warn, sampler=sampler)
        for candidate in manifest.candidates
    ]


def _calibration(
    candidate: Candidate,
    *,
    base: Checkpoint,
    model: LayeredModel,
    seed: int,
    warn: Callable[[str], None],
    sampler: DatasetSampler,
) -> CalibrationSet:
    assert candidate.calibration is not None
    try:
        return load_calibration(
            candidate.calibration,
            family=base.family,
            config=base.model_config,
            base=base.folder,
            seed=seed,
            max_features=model.max_features,
            max_positions=model.max_positions,
            warn=lambda message: warn(f'candidate "{candidate.name}": {message}'),
            sampler=sampler,
        )
    except InputError as error:
        raise InputError(f'candidate "{candidate.name}": calibration: {error}') from error

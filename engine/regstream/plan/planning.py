"""From a manifest to a plan: configs and headers are read, rows tokenized, no weight touched, nothing written."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, reduce

import torch

from regstream import heap, memory
from regstream.architecture import check_passes, describe, unregressed
from regstream.block import LayeredModel
from regstream.calibration import CalibrationSet, Drawing, load_calibration
from regstream.checkpoint import Checkpoint
from regstream.errors import InputError, ManifestError
from regstream.events import Listener, Warned, ignore
from regstream.manifest import Candidate, Manifest
from regstream.methods import Method, RegMean, method_of
from regstream.methods.method import States
from regstream.plan.agreement import check_base, check_candidate, check_ties
from regstream.plan.device import choose_device
from regstream.plan.job import PlannedCandidate
from regstream.plan.opening import Opening
from regstream.plan.plan import Plan
from regstream.plan.step import Step, make_steps
from regstream.plan.warmup import warm_up


def make_plan(
    manifest: Manifest,
    *,
    source: str = "manifest",
    text: str = "",
    device: str | None = None,
    for_this_machine: bool = True,
    commits: Mapping[str, str] | None = None,
    listener: Listener = ignore,
) -> Plan:
    """Open everything that a manifest names, check that it belongs together, and lay out the steps.

    `source` is what errors call the manifest, `text` how it was written, for the record; `device` overrides its own.
    Not for this machine, a plan may be for a device that is not here; it can be looked at, and not be run. `commits`
    are those that an earlier run settled on for models of the hub; others are taken as they stand now.

    Raises:
        ManifestError: a rule fits no parameter, the model is not as [architecture] says, or the device is not there.
        InputError: a checkpoint or a calibration set cannot be used, or the hub does not give one.
    """
    heap.give_back()
    warnings: list[str] = []

    def warn(message: str) -> None:
        warnings.append(message)
        listener(Warned(message=message))

    chosen = _device(manifest, device, source, must_exist=for_this_machine)
    method = method_of(manifest.merge)
    opening = Opening(manifest, commits or {}, listener)
    described = None if manifest.architecture is None else partial(describe, manifest.architecture, source=source)
    base = opening.base(described)
    opened = [opening.candidate(candidate) for candidate in manifest.candidates]
    dtype = _compute_dtype([base, *opened])
    needed, drawing = method.states is not States.NONE, Drawing(commits, listener)
    device_here = chosen if memory.is_there(chosen) else torch.device("cpu")
    model = LayeredModel(base.family, base.config, dtype=dtype, device=device_here)
    for note in _agree(manifest, model, base, opened, source, is_regressed=needed):
        warn(note)
    calibrate = partial(_calibration, base=base, model=model, seed=manifest.merge.seed, warn=warn, drawing=drawing)
    sets = [calibrate(candidate) if needed else None for candidate in manifest.candidates]
    output_dtype = _output_dtype(manifest, base)
    return Plan(
        manifest=manifest,
        manifest_text=text,
        method=method,
        base=base,
        candidates=tuple(map(PlannedCandidate.of, manifest.candidates, opened, sets)),
        commits=opening.commits | drawing.commits,
        depot=opening.depot,
        model=model,
        steps=_steps(manifest, method, model, source, output_dtype.itemsize),
        compute_dtype=dtype,
        output_dtype=output_dtype,
        device=chosen,
        warnings=tuple(warnings),
        runtime_bytes=_held_bytes(method, dtype, device_here),
    )


def _device(manifest: Manifest, device: str | None, source: str, *, must_exist: bool) -> torch.device:
    chosen = choose_device(device or manifest.resources.device, must_exist=must_exist)
    if not memory.is_there(chosen) and manifest.resources.device_memory is None:
        raise ManifestError(f'{source}: device "{chosen}" is not here; give its device_memory in [resources]')
    return chosen


def _agree(
    manifest: Manifest,
    model: LayeredModel,
    base: Checkpoint,
    opened: Sequence[Checkpoint],
    source: str,
    *,
    is_regressed: bool,
) -> Iterator[str]:
    """Hold what is told of the architecture, base and candidates against the model; what a person should know of it."""
    if manifest.architecture is not None:
        check_passes(manifest.architecture, model, source)
        if is_regressed and (told := unregressed(model)):
            yield told
    model.leave_out(base.lacking(model.shapes))
    check_base(base, model.shapes, model.tied)
    for checkpoint in opened:
        yield from checkpoint.notes
        check_ties(checkpoint, model.tied)
        yield from check_candidate(checkpoint, base, model.shapes, manifest.merge.others)


def _steps(manifest: Manifest, method: Method, model: LayeredModel, source: str, itemsize: int) -> tuple[Step, ...]:
    try:
        return make_steps(manifest, method, model.family, model.shapes, itemsize)
    except ManifestError as error:
        raise ManifestError([f"{source}: {problem}" for problem in error.problems]) from error


def _held_bytes(method: Method, dtype: torch.dtype, device: torch.device) -> int:
    if isinstance(method, RegMean):
        warm_up(method, dtype, device)
    heap.give_back()  # what opening and tokenizing left behind is not needed any more
    return memory.resident_bytes()


def _calibration(
    candidate: Candidate,
    *,
    base: Checkpoint,
    model: LayeredModel,
    seed: int,
    warn: Callable[[str], None],
    drawing: Drawing,
) -> CalibrationSet:
    assert candidate.calibration is not None
    try:
        return load_calibration(
            candidate.calibration,
            family=base.family,
            config=base.config,
            base=base.folder,
            seed=seed,
            widest=model.widest,
            positions=model.positions,
            warn=lambda message: warn(f'candidate "{candidate.name}": {message}'),
            drawing=drawing,
        )
    except InputError as error:
        raise InputError(f'candidate "{candidate.name}": calibration: {error}') from error


def _compute_dtype(checkpoints: Sequence[Checkpoint]) -> torch.dtype:
    # The narrowest dtype that holds every weight exactly.
    dtypes = {spec.dtype for checkpoint in checkpoints for spec in checkpoint.tensors.values()}
    dtype = reduce(torch.promote_types, dtypes)
    return dtype if dtype in (torch.float16, torch.bfloat16) else torch.float32


def _output_dtype(manifest: Manifest, base: Checkpoint) -> torch.dtype:
    if manifest.merge.dtype is not None:
        dtype: torch.dtype = getattr(torch, manifest.merge.dtype)
        return dtype
    return _compute_dtype([base])

"""From a manifest to a plan: reads configs and headers, samples of weights, and tokenizes rows; writes nothing."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch

from regstream.checkpoint.adapted_checkpoint import AdaptedCheckpoint
from regstream.checkpoint.checkpoint import Checkpoint
from regstream.checkpoint.loader import CheckpointLoader
from regstream.data.dataset_sampler import DatasetSampler
from regstream.device import malloc
from regstream.device.accelerator_kinds import is_available
from regstream.device.process_memory import resident_bytes
from regstream.errors import ManifestError
from regstream.events import Listener, Warned, ignore_event
from regstream.manifest.schema import Manifest
from regstream.methods import make_method
from regstream.methods.method import Method
from regstream.models.derivation.derive import derive_architecture
from regstream.planning.architecture_summary import summarize_architecture
from regstream.planning.calibration_sets import load_calibration_sets, records_arguments
from regstream.planning.compute_dtype import choose_compute_dtype
from regstream.planning.device import choose_device, device_of_rank
from regstream.planning.discarded_changes import discarded_changes
from regstream.planning.make_steps import make_steps
from regstream.planning.opened_merge import PlannedCandidate
from regstream.planning.plan import Plan
from regstream.planning.presented_vocabulary import settle_vocabulary
from regstream.planning.result_tokenizer import ResultTokenizer
from regstream.planning.step import Step
from regstream.planning.unchanged_inputs import read_signatures
from regstream.planning.unused_settings import unused_settings
from regstream.planning.warmup import WARM_UP_BYTES, warm_up
from regstream.ranks.environment import ALONE, RankId
from regstream.validation.check_inputs import ValidatedInputs, check_inputs, output_dtype
from regstream.validation.summaries import merge_warnings


def make_plan(
    manifest: Manifest,
    *,
    device: str | None = None,
    for_this_machine: bool = True,
    commits: Mapping[str, str] | None = None,
    begun_dtype: str | None = None,
    rank_id: RankId = ALONE,
    listener: Listener = ignore_event,
) -> Plan:
    """As `api.plan`; `commits` and `begun_dtype`, which is computed in, are an unfinished run's; `rank_id` plans."""
    signatures, warnings = read_signatures(manifest), _Warnings(listener)
    chosen, device_here = _choose_devices(manifest, device, rank_id, for_this_machine=for_this_machine)
    method, sampler = make_method(manifest.merge.method, manifest.merge.options), DatasetSampler(commits, listener)
    loader = CheckpointLoader(manifest, commits or {}, listener, rank=rank_id.rank)
    base, candidates, prior_model, tokenizer, _ = opened = _open_checkpoints(manifest, loader, warnings)
    inputs = _check(manifest, opened, chosen, device_here, begun_dtype=begun_dtype, warnings=warnings)
    sets = load_calibration_sets(manifest, method, base, inputs.model, sampler, result=tokenizer, warn=warnings.add)
    result_dtype = output_dtype(manifest, base, inputs, warnings.add)
    steps = _steps(manifest, method, base, inputs, result_dtype, runs_towers=any(map(records_arguments, sets)))
    _warn_of_steps(manifest, method, opened, steps, inputs, device=chosen, warnings=warnings)
    return Plan(
        manifest=manifest,
        method=method,
        base=base,
        candidates=tuple(map(PlannedCandidate, manifest.candidate_names, candidates, sets)),
        prior_model=prior_model,
        tokenizer=tokenizer,
        commits=loader.commits | sampler.commits,
        prefetcher=loader.prefetcher,
        model=inputs.model,
        steps=steps,
        compute_dtype=inputs.model.dtype,
        exact_dtype=inputs.exact_dtype,
        output_dtype=result_dtype,
        device=chosen,
        warnings=tuple(warnings.lines),
        ignored=inputs.ignored,
        input_signatures=signatures,
        ties=inputs.ties,
        rank_id=rank_id,
        runtime_bytes=_runtime_bytes(method, inputs.model.dtype, device_here, is_merged=for_this_machine),
    )


def replan(plan: Plan, manifest: Manifest) -> Plan:
    """The plan of a manifest that differs from a plan's in options of the method, rows and folders only.

    Opens no checkpoint again, and repeats no warning.

    Raises:
        InputError: a calibration set cannot be used.
    """
    method, sets = make_method(manifest.merge.method, manifest.merge.options), [c.calibration for c in plan.candidates]
    if [c.calibration for c in manifest.candidates] != [c.calibration for c in plan.manifest.candidates]:
        sampler = DatasetSampler(plan.commits)
        sets = load_calibration_sets(
            manifest, method, plan.base, plan.model, sampler, result=plan.tokenizer, warn=lambda _: None
        )
    steps = make_steps(
        manifest,
        method,
        plan.model.architecture,
        plan.model.shapes,
        plan.output_dtype.itemsize,
        copied_from_base={p.name: p.shape for s in plan.steps for p in s.parameters if p.name not in plan.model.shapes},
        stored_name=plan.base.stored_name,
        stored_shape=plan.base.stored_shape,
        runs_towers=any(map(records_arguments, sets)),
    )
    candidates = (replace(c, calibration=rows) for c, rows in zip(plan.candidates, sets, strict=True))
    malloc.trim()
    runtime_bytes = max(plan.runtime_bytes, resident_bytes())  # what other work has loaded since counts as well
    return replace(
        plan,
        manifest=manifest,
        method=method,
        candidates=tuple(candidates),
        steps=steps,
        runtime_bytes=runtime_bytes,
    )


def _choose_devices(
    manifest: Manifest, device: str | None, rank_id: RankId, *, for_this_machine: bool
) -> tuple[torch.device, torch.device]:
    """The device of the merge, and the one of this machine to plan it on."""
    resources = manifest.resources
    device_memory = None if for_this_machine else resources.device_memory
    chosen = device_of_rank(choose_device(device or resources.device, device_memory=device_memory), rank_id)
    return chosen, chosen if is_available(chosen) else torch.device("cpu")


class _Opened(NamedTuple):
    """A manifest's checkpoints, and the labels of all models that warnings may name."""

    base: Checkpoint
    candidates: Sequence[Checkpoint]
    prior_model: Checkpoint | None
    tokenizer: ResultTokenizer
    labels: Sequence[str]


def _open_checkpoints(manifest: Manifest, loader: CheckpointLoader, warnings: "_Warnings") -> _Opened:
    base = loader.open_base(partial(derive_architecture, table=manifest.architecture, source=manifest.source))
    candidates = [loader.open_candidate(candidate) for candidate in manifest.candidates]
    prior = None if manifest.merge.prior_model is None else loader.open_prior_model(manifest.merge.prior_model)
    models = [candidate.model for candidate in candidates if isinstance(candidate, AdaptedCheckpoint)]
    models += [] if prior is None else [prior]
    tokenizer = settle_vocabulary(manifest, base, candidates, warnings.add)
    return _Opened(base, candidates, prior, tokenizer, [each.label for each in (base, *candidates, *models)])


def _check(
    manifest: Manifest,
    opened: _Opened,
    chosen: torch.device,
    device_here: torch.device,
    *,
    begun_dtype: str | None,
    warnings: "_Warnings",
) -> ValidatedInputs:
    base, candidates, prior_model, _, labels = opened
    if manifest.merge.base is None:
        warnings.add(f"no base: class, config and tokenizer of the result are those of {base.label}")
    choose_dtype = partial(choose_compute_dtype, manifest.resources.compute_dtype, chosen, begun_dtype)
    with warnings.merged(labels) as warn:
        return check_inputs(
            manifest, base, candidates, device_here, choose_dtype=choose_dtype, warn=warn, prior_model=prior_model
        )


def _warn_of_steps(
    manifest: Manifest,
    method: Method,
    opened: _Opened,
    steps: Sequence[Step],
    inputs: ValidatedInputs,
    *,
    device: torch.device,
    warnings: "_Warnings",
) -> None:
    """Warn of what becomes of parameters, of settings without effect, and of changes that the result lacks."""
    base, candidates, _, _, labels = opened
    warnings.extend(summarize_architecture(base.architecture, steps, manifest).warnings(), in_plan=True)
    warnings.extend(unused_settings(manifest, base.architecture, device.type, steps, tuple(inputs.model.shapes)))
    warnings.extend(merge_warnings(discarded_changes(manifest, method, base, candidates, steps), labels))


def _steps(
    manifest: Manifest,
    method: Method,
    base: Checkpoint,
    inputs: ValidatedInputs,
    dtype: torch.dtype,
    *,
    runs_towers: bool,
) -> tuple[Step, ...]:
    model, copied = inputs.model, inputs.copied_from_base
    try:
        return make_steps(
            manifest,
            method,
            model.architecture,
            model.shapes,
            dtype.itemsize,
            copied_from_base=copied,
            stored_name=base.stored_name,
            stored_shape=base.stored_shape,
            runs_towers=runs_towers,
        )
    except ManifestError as error:
        raise ManifestError([f"{manifest.source}: {problem}" for problem in error.problems]) from error


def _runtime_bytes(method: Method, dtype: torch.dtype, device: torch.device, *, is_merged: bool) -> int:
    """The memory of the process before any work, its libraries warm, measured only where this process merges."""
    if method.needs_calibration() and is_merged:
        warm_up(method, dtype, device)
    malloc.trim()  # what opening and tokenizing left free
    return resident_bytes() + (WARM_UP_BYTES if method.needs_calibration() and not is_merged else 0)


class _Warnings:
    """What a person should know: collected for the record, and passed to the listener at once."""

    def __init__(self, listener: Listener) -> None:
        self.lines: list[str] = []
        self._listener = listener

    def add(self, line: str, *, in_plan: bool = False) -> None:
        """Give one warning; `in_plan` says that a plan shows it anyway."""
        self.lines.append(line)
        self._listener(Warned(message=line, in_plan=in_plan))

    def extend(self, lines: Iterable[str], *, in_plan: bool = False) -> None:
        """Give several."""
        for line in lines:
            self.add(line, in_plan=in_plan)

    @contextmanager
    def merged(self, labels: Sequence[str]) -> Iterator[Callable[[str], None]]:
        """Give what is collected within the context, however it ends, as one line where several checkpoints agree."""
        found: list[str] = []
        try:
            yield found.append
        finally:
            self.extend(merge_warnings(found, labels))

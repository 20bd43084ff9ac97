"""Base and candidates held against one model: what all of them have in common, and what is said of the rest."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

import torch
from transformers import PreTrainedConfig

from regstream.checkpoint.adapted import AdaptedCheckpoint
from regstream.checkpoint.checkpoint import Checkpoint
from regstream.checkpoint.header import FLOAT_DTYPES
from regstream.errors import InputError
from regstream.manifest.schema import Manifest
from regstream.models.architecture.input_groups import check_input_groups
from regstream.models.architecture.modules import ungrouped_weights
from regstream.models.layered_model import LayeredModel
from regstream.validation.adapter_effect import adapter_notes
from regstream.validation.agreement import check_adapter, check_base, check_candidate, check_family
from regstream.validation.auxiliary_files import check_companions, config_notes
from regstream.validation.configs import ConfigComparison
from regstream.validation.grouping import grouped
from regstream.validation.likeness import likenesses
from regstream.validation.tensors import Account, account, refuse_unusable
from regstream.validation.ties import Tie, check_adapted_ties, check_tie, is_here, settle_ties, untie

Warn = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The model of a merge, and what its checkpoints hold beyond that."""

    model: LayeredModel
    compute_dtype: torch.dtype
    carried: Mapping[str, tuple[int, ...]]  # shapes of the base's tensors that no model has, and the result holds
    left_out: Mapping[str, Sequence[str]]  # names of tensors, by the label of their checkpoint
    ties: tuple[Tie, ...]  # to be compared once the files are there


@dataclass
class _Notes:
    """What is said of checkpoints, each once, though several candidates are made of it."""

    warn: Warn
    left_out: dict[str, list[str]] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)

    def told(self, checkpoint: Checkpoint, found: Account, *, of_base: bool = False) -> None:
        self.seen.add(id(checkpoint))
        for line in (*checkpoint.notes, *found.lines(of_base=of_base)):
            self.warn(line)
        names = [name for names in found.left_out.values() for name in names]
        names += [] if of_base else found.prediction_layers
        if names:
            self.left_out.setdefault(checkpoint.label, []).extend(names)


def check_inputs(
    manifest: Manifest,
    base: Checkpoint,
    candidates: Sequence[Checkpoint],
    device: torch.device,
    *,
    source: str,
    is_regressed: bool,
    warn: Warn,
) -> Inputs:
    """Hold what is told of the architecture, base and candidates against the model.

    Raises:
        ManifestError: the model is not as [architecture] says.
        InputError: a checkpoint is not what the base is, or holds what a merge would lose.
    """
    model = _model(base, candidates, device)

    def make(*, tied: bool) -> LayeredModel:
        return _made(base, base.config_with(tie_word_embeddings=tied), model.dtype, device)

    if manifest.merge.others.tied_head == "untie":
        model = untie(base, candidates, model, make)
    configs = ConfigComparison(base, model)
    configs.check_ties(base)
    ties = tuple(settle_ties(base, candidates, model, make))
    model.drop_missing(base.missing_optional(model.shapes))
    notes = _Notes(warn)
    only_base = {name for c in candidates if c.family is base.family for name in c.missing_optional(model.shapes)}
    carried = _check_base(base, model, configs, notes, only_base)
    model.drop_missing(only_base)
    _check_description(manifest, model, source, warn, is_regressed=is_regressed)
    for candidate in candidates:
        _check_candidate(candidate, base, model, manifest, configs=configs, notes=notes)
        if lacking := candidate.missing_optional(only_base):
            warn(f"{candidate.label}: without {grouped(sorted(lacking))}; the result has the base's")
    for tie in filter(is_here, ties):
        check_tie(tie)
    for line in likenesses(base, candidates, list(model.shapes)):
        warn(line)
    return Inputs(
        model=model,
        compute_dtype=model.dtype,
        carried=carried,
        left_out=notes.left_out,
        ties=tuple(tie for tie in ties if not is_here(tie)),
    )


def _check_description(manifest: Manifest, model: LayeredModel, source: str, warn: Warn, *, is_regressed: bool) -> None:
    """Check an [architecture] table against the model, once sizes are known to be those of the files."""
    if manifest.architecture is None:
        return
    check_input_groups(manifest.architecture, model, source)
    if is_regressed and (averaged := ungrouped_weights(model)):
        warn(averaged)


def output_dtype(manifest: Manifest, base: Checkpoint, inputs: Inputs, warn: Warn) -> torch.dtype:
    """The result's dtype: the manifest's, else the one that most of the base's values have."""
    if manifest.merge.dtype is not None:
        dtype: torch.dtype = getattr(torch, manifest.merge.dtype)
        return dtype
    values: Counter[torch.dtype] = Counter()
    for name in inputs.model.shapes:
        values[base.tensors[name].dtype] += base.tensors[name].num_bytes // base.tensors[name].dtype.itemsize
    dtype = max(values, key=lambda dtype: (values[dtype], dtype.itemsize))
    dtype = dtype if dtype in (torch.float16, torch.bfloat16) else torch.float32
    names = (*inputs.model.shapes, *inputs.carried)
    odd = [name for name in names if torch.promote_types(base.tensors[name].dtype, dtype) != dtype]
    if odd and dtype != torch.float32:
        title = str(dtype).removeprefix("torch.")
        warn(
            f"{base.label}: {grouped(odd)}: wider than {title}, which most of its values are; the result is {title};"
            ' [merge] dtype = "float32" keeps every value as it is'
        )
    return dtype


def _model(base: Checkpoint, candidates: Sequence[Checkpoint], device: torch.device) -> LayeredModel:
    """The base's model, in the narrowest dtype that holds every weight of it exactly."""
    everything = _compute_dtype(spec.dtype for c in (base, *candidates) for spec in c.tensors.values())
    model = _made(base, base.model_config, everything, device)
    # Files may hold more than its weights, in dtypes of their own: buffers, and layers that predict further tokens.
    own = (c.tensors[name].dtype for c in (base, *candidates) for name in model.shapes if name in c.tensors)
    dtype = _compute_dtype(own)
    return model if dtype == everything else _made(base, base.model_config, dtype, device)


def _made(base: Checkpoint, config: PreTrainedConfig, dtype: torch.dtype, device: torch.device) -> LayeredModel:
    try:
        return LayeredModel(base.family, config, dtype=dtype, device=device)
    except InputError as error:
        raise InputError(f"{base.label}: {error}") from error


def _check_base(
    base: Checkpoint, model: LayeredModel, configs: ConfigComparison, notes: _Notes, only_base: Collection[str]
) -> Mapping[str, tuple[int, ...]]:
    for line in configs.base_notes():
        notes.warn(line)
    found = check_base(base, model)
    notes.told(base, found, of_base=True)
    names = base.source.list_files(base.folder)
    for line in (*config_notes(base.label, base.config), *check_companions(base.label, base.folder, names)):
        notes.warn(line)
    return base.include((*found.prediction_layers, *map(base.stored_name, sorted(only_base))))


def _check_candidate(
    candidate: Checkpoint,
    base: Checkpoint,
    model: LayeredModel,
    manifest: Manifest,
    *,
    configs: ConfigComparison,
    notes: _Notes,
) -> None:
    held = candidate.model if isinstance(candidate, AdaptedCheckpoint) else candidate
    check_family(candidate, base)
    if id(held) not in notes.seen:
        refuse_unusable(held, model)
    for line in configs.check(candidate):
        notes.warn(line)
    configs.check_ties(candidate)
    check_adapted_ties(candidate, model.tied)
    lines = check_candidate(candidate, base, model.shapes, manifest.merge.others)
    if id(held) not in notes.seen:
        notes.told(held, account(held, model))
    if isinstance(candidate, AdaptedCheckpoint):
        check_adapter(candidate, model)
        lines = [*candidate.notes, *adapter_notes(candidate, model), *lines]
        if names := (*candidate.adapter.ignored_names, *candidate.adapter.duplicates):
            notes.left_out.setdefault(candidate.label, []).extend(names)
    for line in lines:
        notes.warn(line)


def _compute_dtype(dtypes: Iterable[torch.dtype]) -> torch.dtype:
    dtype = reduce(torch.promote_types, {dtype for dtype in dtypes if dtype in FLOAT_DTYPES} or {torch.float32})
    return dtype if dtype in (torch.float16, torch.bfloat16) else torch.float32

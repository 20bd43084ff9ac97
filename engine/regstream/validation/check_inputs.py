"""Checks base and candidates against one model, and collects what they hold beyond it."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce

import torch
from transformers import PreTrainedConfig

from regstream.checkpoint.adapted_checkpoint import AdaptedCheckpoint
from regstream.checkpoint.checkpoint import Checkpoint
from regstream.checkpoint.header import FLOAT_DTYPES
from regstream.errors import label_boundary
from regstream.manifest.schema import Manifest, NonBlockParameters
from regstream.methods import make_method
from regstream.models.layered_model import LayeredModel
from regstream.validation.adapter_effect import adapter_warnings
from regstream.validation.auxiliary_files import check_auxiliary_files, config_warnings
from regstream.validation.buffers import settle_stored_buffers
from regstream.validation.class_labels import label_warnings
from regstream.validation.compatibility import check_adapter, check_base, check_candidate, check_prior_model
from regstream.validation.configs import ConfigComparison
from regstream.validation.duplicates import duplicate_weights
from regstream.validation.merge_rules import MergeRules
from regstream.validation.summaries import summarize_names
from regstream.validation.ties import Tie, check_adapted_ties, check_tie, is_local, resolve_ties, untie
from regstream.validation.unexpected_tensors import UnexpectedTensors, classify_unexpected, refuse_unusable

Warn = Callable[[str], None]
#: From the dtype that holds every weight exactly to that of weights and activations while merging.
ChooseDtype = Callable[[torch.dtype], torch.dtype]


@dataclass(frozen=True, kw_only=True)
class ValidatedInputs:
    """The model of a merge, and what its checkpoints hold beyond it."""

    model: LayeredModel
    exact_dtype: torch.dtype  # the narrowest that holds every weight of all inputs; the model's may be another
    copied_from_base: Mapping[str, tuple[int, ...]]  # shapes of the base's tensors outside the model, for the result
    ignored: Mapping[str, Sequence[str]]  # names of tensors that the result lacks, by the label of their checkpoint
    ties: tuple[Tie, ...]  # to be compared once their files are downloaded


@dataclass
class _InputChecks:
    """The checks of each input, and the tensors that they ignore; a model under several adapters is checked once."""

    base: Checkpoint
    model: LayeredModel
    configs: ConfigComparison
    others: NonBlockParameters
    rules: MergeRules
    warn: Warn
    ignored: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    checked: set[int] = field(default_factory=set)

    def warn_each(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.warn(line)

    def check_base(self, base_only: Collection[str]) -> Mapping[str, tuple[int, ...]]:
        """Check the base; returns the shapes of its tensors that the model lacks and the result has."""
        base = self.base
        self.warn_each(self.configs.base_warnings())
        unexpected = check_base(base, self.model)
        self._report(base, unexpected, of_base=True)
        self.warn_each(config_warnings(base.label, base.config))
        self.warn_each(check_auxiliary_files(base.label, base.folder, base.source.list_files(base.folder)))
        return base.add_outside_tensors((*unexpected.prediction_layers, *map(base.stored_name, sorted(base_only))))

    def check_others(
        self, candidates: Sequence[Checkpoint], prior_model: Checkpoint | None, base_only: Collection[str]
    ) -> None:
        for index, candidate in enumerate(candidates):
            self.check_candidate(index, candidate, base_only)
        if prior_model is not None:
            self.check_prior_model(prior_model)

    def check_candidate(self, index: int, candidate: Checkpoint, base_only: Collection[str]) -> None:
        plain = candidate.model if isinstance(candidate, AdaptedCheckpoint) else candidate
        is_new = id(plain) not in self.checked
        if is_new:
            refuse_unusable(plain, self.model)
        self.warn_each(self.configs.check(candidate))
        unread = self.rules.unread(self.model.shapes, index)
        self.configs.check_untied_weights(candidate, unread)
        check_adapted_ties(candidate, self.model.tied)
        lines = check_candidate(candidate, self.base, self.model.shapes, self.others, unread)
        if is_new:
            self._report(plain, classify_unexpected(plain, self.model))
        if isinstance(candidate, AdaptedCheckpoint):
            check_adapter(candidate, self.model)
            lines = [*candidate.notes, *adapter_warnings(candidate, self.model), *lines]
            self._ignore(candidate, [*candidate.adapter.ignored_names, *candidate.adapter.duplicates])
        self.warn_each(lines)
        if lacking := candidate.missing_optional(base_only):
            self.warn(f"{candidate.label}: lacks {summarize_names(sorted(lacking))}; the result takes the base's")

    def check_prior_model(self, prior: Checkpoint) -> None:
        refuse_unusable(prior, self.model)
        self.warn_each(self.configs.check(prior))
        lines = check_prior_model(prior, self.rules.regressed(self.model.shapes))
        self._report(prior, classify_unexpected(prior, self.model))
        self.warn_each(lines)

    def _report(self, checkpoint: Checkpoint, unexpected: UnexpectedTensors, *, of_base: bool = False) -> None:
        self.checked.add(id(checkpoint))
        self.warn_each((*checkpoint.notes, *unexpected.warnings(of_base=of_base)))
        names = [name for names in unexpected.ignored.values() for name in names]
        self._ignore(checkpoint, names if of_base else [*names, *unexpected.prediction_layers])

    def _ignore(self, checkpoint: Checkpoint, names: Sequence[str]) -> None:
        if names:
            self.ignored[checkpoint.label].extend(names)


def check_inputs(
    manifest: Manifest,
    base: Checkpoint,
    candidates: Sequence[Checkpoint],
    device: torch.device,
    *,
    choose_dtype: ChooseDtype,
    warn: Warn,
    prior_model: Checkpoint | None = None,
) -> ValidatedInputs:
    """Check the [architecture] table, the base, the candidates and a prior model against the model.

    Raises:
        ManifestError: the [architecture] table does not fit the model.
        InputError: a checkpoint does not fit the base, or holds tensors that the merge would wrongly lose.
    """
    model = _model_in_compute_dtype(base, candidates, device, choose_dtype, warn)
    make = partial(_build_tied, base, model.dtype, device)
    if manifest.merge.others.tied_head == "untie":
        model = untie(base, candidates, model, make)
    configs = ConfigComparison(base, model)
    configs.check_untied_weights(base)
    method = make_method(manifest.merge.method, manifest.merge.options)
    rules = MergeRules(manifest, method, model.architecture, len(model.blocks))
    unread = [rules.unread(model.shapes, index) for index in range(len(candidates))]
    ties = tuple(resolve_ties(base, candidates, model, make, unread))
    model.drop_parameters(base.missing_optional(model.shapes))
    checks = _InputChecks(base, model, configs, manifest.merge.others, rules, warn)
    checks.warn_each(settle_stored_buffers(base, model))
    base_only = _missing_optional(base, candidates, model, unread)
    copied_from_base = checks.check_base(base_only)
    model.drop_parameters(base_only)
    checks.check_others(candidates, prior_model, base_only)
    for tie in filter(is_local, ties):
        check_tie(tie)
    checks.warn_each(_comparisons(base, candidates, model, rules, unread))
    return ValidatedInputs(
        model=model,
        exact_dtype=_exact_dtype(model, base, candidates),
        copied_from_base=copied_from_base,
        ignored=dict(checks.ignored),
        ties=tuple(tie for tie in ties if not is_local(tie)),
    )


def _missing_optional(
    base: Checkpoint, candidates: Sequence[Checkpoint], model: LayeredModel, unread: Sequence[Collection[str]]
) -> set[str]:
    """The optional parameters that a candidate lacks from which the result would take them."""
    return {
        name
        for candidate, names in zip(candidates, unread, strict=True)
        if candidate.architecture is base.architecture
        for name in candidate.missing_optional(model.shapes.keys() - set(names))
    }


def _comparisons(
    base: Checkpoint,
    candidates: Sequence[Checkpoint],
    model: LayeredModel,
    rules: MergeRules,
    unread: Sequence[Collection[str]],
) -> Iterator[str]:
    """Lines about equal weights, and about the classes of a classifier whose head is averaged."""
    read_of_all = [name for name in model.shapes if not any(name in names for names in unread)]
    yield from duplicate_weights(base, candidates, read_of_all)
    names = [name for name in model.shapes if model.architecture.part_of(name) == "head"]
    averaged = [name for name in names if rules.rule_of(name).rule in ("average", "combine")]
    is_classifier = model.architecture.model_class.endswith("Classification")
    if averaged and is_classifier:
        yield from label_warnings(base, candidates, summarize_names(averaged))


def output_dtype(manifest: Manifest, base: Checkpoint, inputs: ValidatedInputs, warn: Warn) -> torch.dtype:
    """The result's dtype: the manifest's, else that of most of the base's values; warns of wider tensors."""
    if manifest.merge.dtype is not None:
        dtype: torch.dtype = getattr(torch, manifest.merge.dtype)
        return dtype
    counts: Counter[torch.dtype] = Counter()
    for name in inputs.model.shapes:
        counts[base.tensors[name].dtype] += base.tensors[name].num_bytes // base.tensors[name].dtype.itemsize
    dtype = max(counts, key=lambda dtype: (counts[dtype], dtype.itemsize))
    dtype = dtype if dtype in (torch.float16, torch.bfloat16) else torch.float32
    names = (*inputs.model.shapes, *inputs.copied_from_base)
    wider = [name for name in names if torch.promote_types(base.tensors[name].dtype, dtype) != dtype]
    if wider and dtype != torch.float32:
        title = str(dtype).removeprefix("torch.")
        warn(
            f"{base.label}: {summarize_names(wider)}: wider than {title}, which most of its values are; the result is"
            f' {title}; [merge] dtype = "float32" keeps every value of 32 bits or fewer'
        )
    return dtype


def _model_in_compute_dtype(
    base: Checkpoint, candidates: Sequence[Checkpoint], device: torch.device, choose_dtype: ChooseDtype, warn: Warn
) -> LayeredModel:
    """The base's model, in the dtype chosen from the narrowest that represents every weight of all inputs exactly."""
    of_files = _narrowest(spec.dtype for c in (base, *candidates) for spec in c.tensors.values())
    model = _build_model(base, base.model_config, choose_dtype(of_files), device)
    exact = _exact_dtype(model, base, candidates)
    dtype = choose_dtype(exact)
    if torch.promote_types(exact, dtype) != dtype:
        names = [str(dtype).removeprefix("torch.") for dtype in (exact, dtype)]
        warn(f"compute_dtype: weights in {names[0]} are rounded to {names[1]} before they are merged")
    return model if dtype == model.dtype else _build_model(base, base.model_config, dtype, device)


def _exact_dtype(model: LayeredModel, base: Checkpoint, candidates: Sequence[Checkpoint]) -> torch.dtype:
    """The narrowest dtype of weights that holds those of all inputs."""
    # Files also hold buffers and multi-token prediction layers, which must not widen the dtype.
    checkpoints = (base, *candidates)
    return _narrowest(c.tensors[name].dtype for c in checkpoints for name in model.shapes if name in c.tensors)


def _build_tied(base: Checkpoint, dtype: torch.dtype, device: torch.device, *, tied: bool) -> LayeredModel:
    return _build_model(base, base.config_with(tie_word_embeddings=tied), dtype, device)


def _build_model(base: Checkpoint, config: PreTrainedConfig, dtype: torch.dtype, device: torch.device) -> LayeredModel:
    with label_boundary(base.label):
        return LayeredModel(base.architecture, config, dtype=dtype, device=device)


def _narrowest(dtypes: Iterable[torch.dtype]) -> torch.dtype:
    dtype = reduce(torch.promote_types, {dtype for dtype in dtypes if dtype in FLOAT_DTYPES} or {torch.float32})
    return dtype if dtype in (torch.float16, torch.bfloat16) else torch.float32

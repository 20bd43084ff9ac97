"""From a config to an `Architecture`, by running the model without its weights."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel

from regstream.errors import InputError, ManifestError
from regstream.manifest.architecture import ArchitectureTable
from regstream.models.architecture.architecture import Architecture, BlockCall, Stack
from regstream.models.architecture.default_policy import OPTIONAL_MODULES, POOLED_NORMS, default_policy
from regstream.models.architecture.nested_models import MERGED_ALONE, NestedModel
from regstream.models.config.build import build_config
from regstream.models.config.nested import nested_config
from regstream.models.derivation.block_call import WholePass, find_block_call, hidden_argument, num_outputs
from regstream.models.derivation.block_list import find_block_lists
from regstream.models.derivation.experts import with_experts
from regstream.models.derivation.input_groups import input_groups, without
from regstream.models.derivation.model_class import (
    class_of_config,
    is_language_model,
    predicts_targets,
    predicts_tokens,
    type_of_class,
)
from regstream.models.derivation.model_inputs import example_row
from regstream.models.derivation.norms import find_norms
from regstream.models.derivation.parameter_names import ParameterNames
from regstream.models.derivation.parts import find_parts, uses_between, uses_outside
from regstream.models.derivation.stand_ins import stand_in_parameters
from regstream.models.derivation.trace import Trace, run_traced
from regstream.models.derivation.verify import check_owners, check_stem, max_features, misread_linears
from regstream.models.derivation.whole_passes import whole_passes
from regstream.models.empty_model import empty_model
from regstream.models.layered_model import LayeredModel
from regstream.models.overrides.apply import groups_of_table, parts_of_table
from regstream.models.overrides.messages import refuse
from regstream.models.overrides.modules import (
    check_class,
    check_image_tokens,
    check_modules,
    misread_problems,
    several_stacks_problems,
)

_MAX_CHARS = 300
#: By what they are derived from: one process may plan, run, verify and evaluate a merge, and Llama 8B takes seconds.
_DERIVED: dict[str, Architecture] = {}


def derive_architecture(
    content: Mapping[str, Any],
    file: Path,
    *,
    part: NestedModel | None = None,
    table: ArchitectureTable | None = None,
    source: str = "",
) -> Architecture:
    """Derive the architecture of the model that a config describes, or of a `part` of it.

    What the manifest's `table` says takes the place of what is derived; `source` names the manifest.

    Raises:
        ManifestError: the table does not fit the model.
        InputError: transformers has no such model, it does not run, or its blocks cannot be merged one by one.
    """
    part = part or MERGED_ALONE.get(str(content.get("model_type")))
    key = repr((sorted(content.items()), part, table))
    if key not in _DERIVED:
        _DERIVED[key] = _derive(content, file, part, table, source)
    return _DERIVED[key]


def _derive(
    content: Mapping[str, Any], file: Path, part: NestedModel | None, table: ArchitectureTable | None, source: str
) -> Architecture:
    if table is not None:
        check_class(table, source)
    config, class_name = _config_and_class(content, file, part, table)
    try:
        model = empty_model(class_name, config, torch.float32)
    except InputError as error:
        if table is None or table.model_class is None:
            raise
        raise ManifestError(f"{source}: [architecture] model_class: {error}") from error
    if table is not None:
        check_modules(table, model, source)
    try:
        file_type = str(content.get("model_type"))
        return _Derivation(model, config, file_type, part=part, table=table, source=source).architecture()
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _config_and_class(
    content: Mapping[str, Any], file: Path, part: NestedModel | None, table: ArchitectureTable | None
) -> tuple[PreTrainedConfig, str]:
    if table is not None and table.model_class is not None:
        # Another type is of code that comes with the checkpoint, for a model that transformers also has.
        known = str(content.get("model_type")) in CONFIG_MAPPING
        return build_config(content, file, None if known else type_of_class(table.model_class)), table.model_class
    if part is not None:
        return build_config(nested_config(part, content, file), file, part.model_type), part.model_class
    class_name = class_of_config(content, file)
    return build_config(content, file), class_name


class _Derivation:
    """The passes of one model, and what follows from them."""

    def __init__(
        self,
        model: PreTrainedModel,
        config: PreTrainedConfig,
        file_type: str,
        *,
        part: NestedModel | None,
        table: ArchitectureTable | None,
        source: str,
    ) -> None:
        self._model, self._config, self._file_type, self._part, self._source = model, config, file_type, part, source
        self._table = table or ArchitectureTable()
        self._names = ParameterNames(model, self._table.renames)
        self._parameters = stand_in_parameters(model)
        self._reads_tokens = model.main_input_name == "input_ids"

    def architecture(self) -> Architecture:
        """Describe the model, and verify the description against it."""
        row = example_row(self._model)
        trace = self._run(row)
        stacks = find_block_lists(self._model, trace, self._table.blocks)
        for blocks in stacks:
            check_owners(self._model, blocks, trace)
        if len(stacks) > 1:
            refuse(self._source, several_stacks_problems(self._table))
        described = self._describe(stacks, trace)
        once = frozenset(path for path, count in trace.calls.items() if count == 1)
        passes, mixes = whole_passes(self._model, described, row, trace, self._run)
        device = torch.device("cpu")
        layered = LayeredModel(described, self._config, dtype=torch.float32, device=device, model=self._model)
        before_BLD: Tensor | None = None
        for stack, of_stack in enumerate(passes):
            with self._blames("embeddings"):
                check_stem(layered, self._parameters, row, of_stack[0], before_BLD)
            with self._blames("body"):
                call = find_block_call(layered, self._parameters, of_stack, once, self._table.body)
            layered.set_block_call(replace(call, mixes_rows=mixes), stack)
            widest = max_features(layered, self._parameters, of_stack)
            layered.set_block_call(replace(call, mixes_rows=mixes, max_features=widest), stack)
            before_BLD = of_stack[0].states[-1]
        described, names = self._without_misread(layered, passes), self._names.expert_pieces
        return with_experts(described, layered.blocks, trace, names, regresses=not self._table.inputs)

    def _describe(self, paths: Sequence[str], trace: Trace) -> Architecture:
        """The description, but for how a block runs alone."""
        part, table = self._part, self._table
        class_name, model_type = type(self._model).__name__, str(self._config.model_type)
        is_causal_lm, names = predicts_tokens(class_name), self._names
        stacks = tuple(self._stack(paths, stack, trace) for stack in range(len(paths)))
        lengths = [trace.members[path][0].hidden_shape[1] for path in paths]
        is_of_images = self._model.main_input_name == "pixel_values"
        members = [
            (block, f"{path}.{index}.", lengths[: stack + 1])
            for stack, path in enumerate(paths)
            for index, block in enumerate(self._model.get_submodule(path).children())
        ]
        found = [
            input_groups(block, prefix, trace, None if is_of_images and len(num_tokens) == 1 else num_tokens)
            for block, prefix, num_tokens in members
        ]
        parts = find_parts(self._model, paths, trace)
        if len(paths) == 1:
            found = groups_of_table(table, found, self._model, paths[0], self._source)
            check_image_tokens(table, self._model, lengths[0], self._source)
            parts = parts_of_table(table, parts, self._model, paths[0], self._source)
        return Architecture(
            name=part.name if part else model_type,
            model_type=model_type,
            file_type=self._file_type,
            model_class=class_name,
            modality=self._model.main_input_name,
            stacks=stacks,
            groups=tuple(groups for groups, _ in found),
            norms=tuple(find_norms(block, prefix, trace, num_tokens[-1]) for block, prefix, num_tokens in members),
            not_regressed=tuple(reasons for _, reasons in found),
            parts=parts,
            defaults=default_policy(model_type, is_language_model=is_language_model(class_name, model_type)),
            is_causal_lm=is_causal_lm,
            predicts_targets=len(stacks) > 1 and predicts_targets(class_name),
            pooled_norm=table.pooled or POOLED_NORMS.get(model_type, ""),
            optional=table.optional or tuple(n for n, _ in self._model.named_children() if n in OPTIONAL_MODULES),
            row_tokens=None if self._reads_tokens else lengths[0],
            model_name=names,
            pieces=names.pieces,
            conversion=names.conversion,
            nested=part,
        )

    def _stack(self, paths: Sequence[str], stack: int, trace: Trace) -> Stack:
        calls = trace.members[paths[stack]]
        uses = uses_between(self._model, paths, trace, stack) if stack else {}
        all_uses = uses_outside(self._model, paths, trace)
        is_first = {name: times[0] == all_uses[name][0] for name, times in uses.items()}
        return Stack(
            blocks=paths[stack],
            num_blocks=len(calls),
            call=BlockCall(body="", hidden_argument=hidden_argument(calls), num_outputs=num_outputs(calls)),
            hidden_size=calls[0].hidden_shape[2],
            stem=tuple(name for name in uses if is_first[name]),
            stem_borrows=tuple(name for name in uses if not is_first[name]),
        )

    def _run(self, inputs: Mapping[str, Tensor], until: Sequence[str] | None = None) -> Trace:
        try:
            return run_traced(self._model, self._parameters, inputs, until=until)
        except InputError as error:
            raise InputError(f"{type(self._model).__name__} cannot be merged block by block: {error}") from error
        except Exception as error:  # a forward may raise anything
            text = textwrap.shorten(f"{type(error).__name__}: {error}", _MAX_CHARS, placeholder=" …")
            raise InputError(f"{type(self._model).__name__} does not run on {', '.join(inputs)}: {text}") from error

    def _without_misread(self, layered: LayeredModel, passes: Sequence[Sequence[WholePass]]) -> Architecture:
        """The description without linears that do not read each token once, as it turns out block by block."""
        architecture, problems = layered.architecture, dict[tuple[int, str], str]()
        for of_stack in passes:
            problems |= misread_linears(layered, self._parameters, of_stack)
        if problems and self._table.inputs:
            refuse(self._source, misread_problems(self._table, problems))
        groups, reasons = list(architecture.groups), [dict(reasons) for reasons in architecture.not_regressed]
        for (block, linear), problem in problems.items():
            groups[block] = tuple(without(group, linear) for group in groups[block])
            groups[block] = tuple(group for group in groups[block] if group.linears)
            reasons[block][f"{linear}.weight"] = problem
        return replace(architecture, groups=tuple(groups), not_regressed=tuple(reasons))

    @contextmanager
    def _blames(self, key: str) -> Iterator[None]:
        """Name a key of the table, where it has that key, in an error about what the key says."""
        try:
            yield
        except InputError as error:
            if getattr(self._table, key) is None or not getattr(self._table, key):
                raise
            raise ManifestError(f"{self._source}: [architecture] {key}: {error}") from error

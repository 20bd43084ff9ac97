"""Warns of fine-tuned changes that have no effect: what the result takes from one checkpoint, by default, by
`[merge.others]` or by a rule; tokenizers.

Only local checkpoints are compared: no weight is downloaded for a warning.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from regstream.checkpoint.adapted_checkpoint import AdaptedCheckpoint
from regstream.checkpoint.checkpoint import Checkpoint
from regstream.checkpoint.source import HubSource
from regstream.data.chat_templates import read_templates
from regstream.errors import InputError
from regstream.manifest.rules import match_rule
from regstream.manifest.schema import Manifest, Merge
from regstream.manifest.tokenizer_keys import template_source
from regstream.manifest.value_types import BASE
from regstream.methods.method import Method
from regstream.models.architecture.architecture import NonBlockPart
from regstream.planning.step import PlannedParameter, Step
from regstream.storage.json_file import object_or_empty
from regstream.validation.merge_rules import ChosenRule, MergeRules
from regstream.validation.summaries import summarize_names

#: How many samples of a tensor are compared, and of how many values: few changed rows may go unnoticed.
_NUM_SAMPLES, _SAMPLE_SIZE = 64, 64
_PARTS: Mapping[NonBlockPart, str] = {
    "embeddings": "embedding", "final_norm": "final norm", "head": "head", "towers": "towers",
}  # fmt: skip
#: The part of tokenizer.json that is read: added tokens come before the vocabulary.
_TOKENIZER_BYTES = 1 << 22
_MAX_NAMES = 3


def discarded_changes(
    manifest: Manifest, method: Method, base: Checkpoint, checkpoints: Sequence[Checkpoint], steps: Sequence[Step]
) -> Iterator[str]:
    """Yield a line for each part that candidates changed and the result takes from elsewhere, each rule that takes
    what they changed from the base, and each tokenizer.

    Nothing is said of a part for which the manifest confirms the default.
    """
    num_blocks = 1 + max((step.block for step in steps if step.block is not None), default=0)
    rules = MergeRules(manifest, method, base.architecture, num_blocks)
    for part, title in _PARTS.items():
        chosen, default = rules.chosen(part), rules.default(part)
        if chosen == default or (chosen or default).rule not in ("base", "candidate"):
            continue
        tensors = [
            tensor for tensor in _of_part(manifest, base, steps, part) if tensor.rule == (chosen or default).rule
        ]
        changed = [
            checkpoint
            for index, checkpoint in enumerate(checkpoints)
            if any(_differs(checkpoint, base, tensor.name) for tensor in tensors if tensor.candidate != index)
        ]
        if changed:
            labels, verb = ", ".join(checkpoint.label for checkpoint in changed), "differ" + "s" * (part != "towers")
            yield f"{labels}: the {title} {verb} from the base's, {_advice(manifest, part, chosen)}"
    yield from _discarded_by_rules(manifest, base, checkpoints, steps, num_blocks)
    for checkpoint in checkpoints if base.architecture.modality == "input_ids" else ():
        yield from _tokenizer_warnings(manifest.merge, checkpoint, base)


def _discarded_by_rules(
    manifest: Manifest, base: Checkpoint, checkpoints: Sequence[Checkpoint], steps: Sequence[Step], num_blocks: int
) -> Iterator[str]:
    names = [tensor.name for step in steps for tensor in step.parameters if tensor.rule == "base"]
    matched = {n: match_rule(manifest.rules, n, base.architecture.block_of(n), num_blocks) for n in names}
    for index, rule in enumerate(manifest.rules):
        own = [name for name in names if matched[name] is rule]
        for checkpoint in checkpoints:
            if changed := [name for name in own if _differs(checkpoint, base, name)]:
                tensors = f"{len(changed):,} tensor{'s' * (len(changed) > 1)}"
                what = f'use = "{rule.use}": discards changes of {tensors}'
                yield f"{checkpoint.label}: rules[{index}] {rule.parameters!r}: {what}: {summarize_names(changed)}"


def _advice(manifest: Manifest, part: NonBlockPart, chosen: ChosenRule | None) -> str:
    """What becomes of a part that candidates changed, and how to have it otherwise."""
    if chosen is not None:
        use = getattr(manifest.merge.others, part)
        source = "the base's" if chosen.candidate is None else f'candidate "{use}"\'s'
        return f'without effect: the result has {source}, as [merge.others] {part} = "{use}" says'
    return (
        f'which the result takes by default; [merge.others] {part} = "average" takes the mean, the name of a candidate'
        f' takes its own, {part} = "base" confirms the default'
    )


def _of_part(
    manifest: Manifest, base: Checkpoint, steps: Sequence[Step], part: NonBlockPart
) -> Iterator[PlannedParameter]:
    """The parameters of a part that no rule names."""
    num_blocks = 1 + max((step.block for step in steps if step.block is not None), default=0)
    return (
        tensor
        for step in steps
        for tensor in step.parameters
        if base.architecture.part_of(tensor.name) == part
        and match_rule(manifest.rules, tensor.name, None, num_blocks) is None
    )


def _differs(checkpoint: Checkpoint, base: Checkpoint, name: str) -> bool:
    """Whether a sampled value differs, in the narrower of both dtypes."""
    own, other = checkpoint.tensors.get(name), base.tensors[name]
    if own is None or own.shape[1:] != other.shape[1:]:  # which another line names
        return False
    if _is_remote(checkpoint) or _is_remote(base) or checkpoint.shares_tensor(base, name):
        return False
    size = min(math.prod(own.shape), math.prod(other.shape))
    dtype = min(own.dtype, other.dtype, key=lambda dtype: (dtype.itemsize, -torch.finfo(dtype).eps))
    length = min(_SAMPLE_SIZE, size)
    count = min(_NUM_SAMPLES, math.ceil(size / length))
    own_values, base_values = torch.empty(length), torch.empty(length)
    try:
        for index in range(count):
            start = (size - length) * index // max(1, count - 1)
            checkpoint.read_range(name, start, own_values)
            base.read_range(name, start, base_values)
            if not torch.equal(own_values.to(dtype), base_values.to(dtype)):
                return True
    except InputError:  # the step that uses the tensor reports it
        return False
    return False


def _is_remote(checkpoint: Checkpoint) -> bool:
    return isinstance(checkpoint.source, HubSource)


def _tokenizer_warnings(merge: Merge, checkpoint: Checkpoint, base: Checkpoint) -> Iterator[str]:
    """A line for a template, and one for tokens, that the result lacks though the manifest does not say so."""
    if _is_remote(checkpoint) or _is_remote(base):
        return
    folder = checkpoint.adapter.file.parent if isinstance(checkpoint, AdaptedCheckpoint) else checkpoint.folder
    template, base_template = _templates(folder), _templates(base.folder)
    if template not in ({}, base_template) and merge.chat_template is None and template_source(merge) == BASE:
        none, other = "the base has no chat template; the result has none", "the chat template differs from the base's;"
        problem = f"{other} the result has the base's" if base_template else none
        advice = 'with the name of a candidate takes its own, chat_template = "base" confirms the default'
        yield f"{checkpoint.label}: {problem}; [merge] chat_template {advice}"
    tokens, base_tokens = _added_tokens(folder), _added_tokens(base.folder)
    added = [token for token in tokens if tokens[token] != base_tokens.get(token)] if base_tokens else []
    if added and merge.tokenizer is None:
        names = ", ".join(map(repr, added[:_MAX_NAMES])) + (" …" if len(added) > _MAX_NAMES else "")
        yield (
            f"{checkpoint.label}: its tokenizer adds {len(added):,} token{'s' * (len(added) > 1)} that the base's lacks"
            f" ({names}); the result"
            ' has the base\'s tokenizer, without them; [merge] tokenizer = "union" adds them with their'
            ' rows, tokenizer = "base" confirms the default'
        )


def _templates(folder: Path) -> dict[str, str]:
    return {name: template.strip() for name, template in read_templates(folder).items()}


def _added_tokens(folder: Path) -> dict[str, int]:
    """The ids of tokens beside the vocabulary; empty where no file lists them."""
    entries: list[Any] = []
    if (file := folder / "tokenizer.json").is_file():
        with file.open("rb") as stream:
            text = stream.read(_TOKENIZER_BYTES).decode("utf-8", errors="replace")
        key = text.find('"added_tokens"')
        begin = text.find("[", key) if key >= 0 else -1
        try:
            entries = json.JSONDecoder().raw_decode(text, begin)[0] if begin >= 0 else []
        except (ValueError, RecursionError):
            entries = []
    tokens = {str(e["content"]): int(e["id"]) for e in entries if isinstance(e, dict) and _is_token(e)}
    more = object_or_empty(folder / "added_tokens.json").items()
    return tokens | {token: index for token, index in more if isinstance(index, int)}


def _is_token(entry: Mapping[str, Any]) -> bool:
    return isinstance(entry.get("content"), str) and isinstance(entry.get("id"), int)

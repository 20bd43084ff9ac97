"""What candidates tuned and a default leaves out: parts outside the blocks that are the base's unless the manifest says
otherwise, and the files of tokenizers.

Of checkpoints of the hub nothing is looked at: no weight is fetched for a warning.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from regstream.checkpoint.adapted import AdaptedCheckpoint
from regstream.checkpoint.checkpoint import Checkpoint
from regstream.checkpoint.source import HubSource
from regstream.errors import InputError
from regstream.manifest.rules import match_rule
from regstream.manifest.schema import Manifest
from regstream.plan.step import Step

#: Stretches of a tensor that are compared, and values of each: a tensor of which few rows differ may pass for the same.
_STRETCHES, _VALUES = 64, 64
_PARTS = {"embeddings": "embedding", "final_norm": "final norm", "head": "head"}
#: Of a tokenizer's own file: what it adds to the vocabulary stands before that.
_BEGINNING_BYTES = 1 << 22
_MOST_NAMED = 3


def dropped(manifest: Manifest, base: Checkpoint, opened: Sequence[Checkpoint], steps: Sequence[Step]) -> Iterator[str]:
    """A line for each part that candidates tuned and a default takes from the base, and for each other tokenizer."""
    for part, title in _PARTS.items():
        defaulted = _defaulted(manifest, base, steps, part)
        names = [name for name in defaulted if all(name in checkpoint.tensors for checkpoint in opened)]
        tuned = [checkpoint for checkpoint in opened if any(_differs(checkpoint, base, name) for name in names)]
        if tuned:
            labels = ", ".join(checkpoint.label for checkpoint in tuned)
            yield (
                f"{labels}: the {title} differs from the base's, which the result takes by default; [merge.others]"
                f' {part} = "average" takes the mean, {part} = "base" confirms the default'
            )
    for checkpoint in opened if base.family.modality == "input_ids" else ():
        yield from _other_tokenizer(checkpoint, base)


def _defaulted(manifest: Manifest, base: Checkpoint, steps: Sequence[Step], part: str) -> list[str]:
    """The parameters of a part that are the base's though nobody asked for it."""
    if getattr(manifest.merge.others, part) is not None:
        return []
    num_blocks = 1 + max((step.block for step in steps if step.block is not None), default=0)
    return [
        tensor.name
        for step in steps
        for tensor in step.parameters
        if tensor.rule == "base"
        and base.family.part_of(tensor.name) == part
        and match_rule(manifest.rules, tensor.name, None, num_blocks) is None
    ]


def _differs(checkpoint: Checkpoint, base: Checkpoint, name: str) -> bool:
    """Whether some sampled value of a tensor is another, in the narrower of both dtypes."""
    own, other = checkpoint.tensors[name], base.tensors[name]
    if _is_remote(checkpoint) or _is_remote(base) or (name not in checkpoint.adapted_names and own == other):
        return False
    size = min(math.prod(own.shape), math.prod(other.shape))
    dtype = min(own.dtype, other.dtype, key=lambda dtype: (dtype.itemsize, -torch.finfo(dtype).eps))
    length = min(_VALUES, size)
    values = [torch.empty(length) for _ in range(2)]
    try:
        for index in range(min(_STRETCHES, math.ceil(size / length))):
            start = (size - length) * index // max(1, _STRETCHES - 1) if size > _STRETCHES * length else index * length
            for reader, into in zip((checkpoint, base), values, strict=True):
                reader.read_range(name, min(start, size - length), into)
            if not torch.equal(values[0].to(dtype), values[1].to(dtype)):
                return True
    except InputError:  # it is told where the tensor is used
        return False
    return False


def _is_remote(checkpoint: Checkpoint) -> bool:
    return isinstance(checkpoint.source, HubSource)


def _other_tokenizer(checkpoint: Checkpoint, base: Checkpoint) -> Iterator[str]:
    if _is_remote(checkpoint) or _is_remote(base):
        return
    folder = checkpoint.adapter.file.parent if isinstance(checkpoint, AdaptedCheckpoint) else checkpoint.folder
    own, other = _chat_template(folder), _chat_template(base.folder)
    if own is not None and own != other:
        differs = "which the base has not" if other is None else "other than the base's"
        yield (
            f"{checkpoint.label}: it has a chat template {differs}; the result carries the base's files: copy the"
            " template into the result if prompts are to be written as for this candidate"
        )
    known, found = _added_tokens(base.folder), _added_tokens(folder)
    if more := [token for token in found if found[token] != known.get(token)] if known and found else []:
        named = ", ".join(map(repr, more[:_MOST_NAMED])) + (" …" if len(more) > _MOST_NAMED else "")
        yield (
            f"{checkpoint.label}: its tokenizer adds {len(more)} tokens that the base's has not ({named}); the result"
            " carries the base's tokenizer, which does not know them"
        )


def _chat_template(folder: Path) -> str | None:
    """A tokenizer's template, from whichever file has it."""
    plain = folder / "chat_template.jinja"
    if plain.is_file():
        return plain.read_text(encoding="utf-8", errors="replace").strip()
    for name in ("tokenizer_config.json", "chat_template.json"):
        if found := _object(folder / name).get("chat_template"):
            return found.strip() if isinstance(found, str) else json.dumps(found, sort_keys=True)
    return None


def _added_tokens(folder: Path) -> dict[str, int]:
    """Tokens beside the vocabulary proper, with their ids; none where no file tells."""
    entries: list[Any] = []
    if (file := folder / "tokenizer.json").is_file():
        with file.open("rb") as stream:
            text = stream.read(_BEGINNING_BYTES).decode("utf-8", errors="replace")
        place = text.find('"added_tokens"')
        begin = text.find("[", place) if place >= 0 else -1
        try:
            entries = json.JSONDecoder().raw_decode(text, begin)[0] if begin >= 0 else []
        except (ValueError, RecursionError):
            entries = []
    tokens = {str(e["content"]): int(e["id"]) for e in entries if isinstance(e, dict) and _is_token(e)}
    extra = {str(key): value for key, value in _object(folder / "added_tokens.json").items() if isinstance(value, int)}
    return tokens | extra


def _is_token(entry: Mapping[str, Any]) -> bool:
    return isinstance(entry.get("content"), str) and isinstance(entry.get("id"), int)


def _object(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_bytes()) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}

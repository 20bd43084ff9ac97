"""A manifest to begin with: what is known is written out, all else stands there as a comment with its default.

Comments that begin at the margin can be taken at their word, all of them at once.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

_MERGE = """\
# A merge of {count}; `regstream plan` tells what it takes, `regstream run` does it.
# Places are relative to this file. What is commented out is the default; it is an example where it names something, or
# where its comment says so or what the default is. Further in stands what goes in place of another key, or with some
# methods or models only.

[merge]
{method}
base = {base}
output = "merged"
# alpha = 0.95                        # off-diagonal scale of the Gram matrices
#   scale = 0.3                       # of what candidates add to the base, with method = "task_arithmetic"
# dtype = "bfloat16"                  # float32 | float16 | bfloat16, of the result; default: the base's
# shard_size = "5GiB"                 # consecutive blocks share a file up to this; default: a file each
# seed = 0                            # by which rows are drawn

# [merge.others]                      # what no block holds: base | average
{others}
# vocabulary = "same"                 # or "base": further rows of the candidates' vocabularies are cut off
# tied_head = "refuse"                # or "untie": a head that differs from embeddings it is tied to counts by itself

# [[rules]]                           # example; first match wins; default: regress linears, average the rest of a block
# parameters = "*.self_attn.*"
# blocks = "0-7"                      # a block, a range, a list "0,4-7", or early | middle | late
# use = "average"                     # regress | average | base
"""
_OTHERS_REGRESSED = """\
# embeddings = "base"                 # of language models; encoders of text and of images default to "average"
# final_norm = "average"              # CLIP's defaults to "base"
# head = "base"                       # of language models; encoders' poolers default to "average\""""
_OTHERS_COMBINED = """\
# embeddings = "average"              # with regmean and regmean++ language models default to "base"
# final_norm = "average"              # with these, CLIP's defaults to "base"
# head = "average"                    # with these, language models default to "base\""""
_READY = 'method = "regmean++"                  # regmean++ | regmean | average | task_arithmetic'
_NOT_READY = (
    'method = "average"                    # "regmean++" needs a [candidates.calibration] for every candidate, below'
)
_CALIBRATION = """\
{off}[candidates.calibration]
{off}path = {path}
#   dataset = "org/name"              # in place of path: a data set of the hub, with its config, split, revision
# field = "text"                      # of each row; or "input_ids", "messages" (chat template), or a text with fields
                                      # in braces: "{{question}}\\n{{answer}}"
# rows = 256                          # drawn by the seed; default: all
# max_length = 2048                   # tokens of a row, at most
# batch_rows = 8                      # that go through a block together; default: by their length and the model's width
# [candidates.evaluation]             # held-out rows, same keys; for `regstream evaluate`
# path = {held_out}
# label = "label"                     # of images in a table: the column of their classes
#   head = "head.safetensors"         # of images: weight (classes, features); or, for a CLIP,
#   classes = "classes.toml"          # names and templates that its text tower makes a head of
"""
_RESOURCES = """
#   [evaluation]
#   text_tower = "org/clip"           # the whole CLIP, where there are classes and the base is its vision tower alone

#   [architecture]                    # where the base's model_type is not known; the README has its keys

# [resources]
# device = "cpu"                      # cpu | cuda | cuda:1 | mps; default: cuda where there is one
# host_memory = "8GiB"                # budgets of the whole process; default: what is free, less a margin
# device_memory = "8GiB"              # default: what is free there, less a margin
# disk = "100GiB"                     # for result, hidden states and shards of the hub; default: what is free
# workdir = "work"                    # a run makes a folder of its own in it; default: the output
"""


@dataclass(frozen=True, kw_only=True)
class Outlined:
    """A candidate as a manifest will spell it; `model` or `adapter` is there, `calibration` is a path."""

    name: str
    model: str | None
    adapter: str | None
    calibration: str | None = None


def outline(base: str, candidates: Sequence[Outlined]) -> str:
    """The text of a manifest. Where a candidate has no calibration set, it averages, and says what is to be filled in.

    Whether the names are good ones, and what they name is there, is for whoever reads the manifest to say.

    Raises:
        ValueError: a name cannot be written in UTF-8.
    """
    ready = is_ready(candidates)
    count = "one candidate" if len(candidates) == 1 else f"{len(candidates)} candidates"
    method = _READY if ready else _NOT_READY
    others = _OTHERS_REGRESSED if ready else _OTHERS_COMBINED
    merge = _MERGE.format(count=count, method=method, base=_toml(base), others=others)
    tables = [merge, *map(_candidate, candidates)]
    text = "\n".join(tables) + _RESOURCES
    text.encode()
    return text


def is_ready(candidates: Sequence[Outlined]) -> bool:
    """Whether there is all that a regression takes."""
    return all(candidate.calibration is not None for candidate in candidates)


def _candidate(candidate: Outlined) -> str:
    lines = ["[[candidates]]", f"name = {_toml(candidate.name)}"]
    lines += [
        f"{key} = {_toml(value)}"
        for key, value in (("model", candidate.model), ("adapter", candidate.adapter))
        if value is not None
    ]
    if candidate.adapter is None:
        lines.append(
            '# adapter = "org/name"                # example: a PEFT LoRA adapter on the model, folder or hub id'
        )
    elif candidate.model is None:
        lines.append('# model = "org/name"                  # that the adapter is on; default: the base')
    lines.append(
        "# weight = 1.0                        # its share in all sums and means; only ratios of weights count"
    )
    rows = _CALIBRATION.format(
        off="# " if candidate.calibration is None else "",
        path=_toml(candidate.calibration or f"{candidate.name}.jsonl"),
        held_out=_toml(f"{candidate.name}.heldout.jsonl"),
    )
    return "\n".join([*lines, rows])


def _toml(text: str) -> str:
    """A basic string; JSON's escapes are TOML's but for one character, which JSON leaves as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")

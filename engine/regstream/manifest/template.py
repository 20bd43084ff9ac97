"""The manifest that `regstream init` writes: the given keys as settings, every other key as a comment.

Without the "# " at the margin of keys and headers it is a manifest as well. "#   " comments out keys that replace
another key, or that only some methods or models have.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Final

from regstream.manifest.keys import Key, key_of, keys_of, tables, toml
from regstream.manifest.method_options import option_fields, options_of
from regstream.methods import find_method
from regstream.methods.average import Average
from regstream.methods.method import MergeRule
from regstream.methods.regmean_plus_plus import RegMeanPlusPlus

_INTRODUCTION: Final = """\
# A merge of {count}. `regstream plan` shows what it takes, `regstream run` merges.
# Paths are relative to this file. Comments at the margin show defaults, or examples where they say "example" or name a
# default in words. Comments further in show keys that replace another one, or that only some methods or models have.
"""
_ALTERNATIVES: Final[Mapping[str, Collection[str]]] = {
    "[merge]": {"prior_model"},
    "[merge.others]": {"towers"},
    "[[rules]]": {"candidate", "weight", "scale", "density"},
    "[candidates.calibration]": {"dataset", "config", "split", "revision", "target", "images"},
    "[candidates.evaluation]": {"head", "classes"},
    "[evaluation]": {"text_tower"},
}
#: The parts whose defaults depend on the method, with what the recipes of RegMean++ have for language models.
_PUBLISHED: Final[Mapping[str, MergeRule]] = {"embeddings": "base", "final_norm": "average", "head": "base"}
_COLUMN: Final = 38
_WIDTH: Final = 120
_TABLES: Final = {header: (key_of(header, field), table) for header, field, table in tables()}


@dataclass(frozen=True, kw_only=True)
class CandidateDraft:
    """A candidate as a manifest will spell it; `model` or `adapter` is there, `calibration` is a path."""

    name: str
    model: str | None
    adapter: str | None
    calibration: str | None = None


def manifest_template(
    base: str | None, candidates: Sequence[CandidateDraft], offered: Collection[str] = (), *, method: str | None = None
) -> str:
    """The text of a manifest, with the options of its `method` and their defaults at the margin.

    Where no method is given and a candidate has no calibration set, it averages, and says what is to be filled in.
    `offered` are keys that only some models have, and this base has: they stand at the margin.

    Whether the names are good ones, and what they name is there, is for whoever reads the manifest to say.

    Raises:
        ValueError: a name cannot be written in UTF-8.
    """
    method = method or (RegMeanPlusPlus.name if all_have_calibration(candidates) else Average.name)
    count = "one candidate" if len(candidates) == 1 else f"{len(candidates)} candidates"
    others = _rules_outside(method)
    sections = [
        _INTRODUCTION.format(count=count).splitlines(),
        _section("[merge]", {"method": method, **({} if base is None else {"base": base}), "output": "merged"}),
        _section(
            "[merge.others]",
            examples={part: rule for part, rule in others.items() if rule != "combine"},
            offered=offered,
            alternatives=[part for part, rule in others.items() if rule == "combine"],
        ),
        _section("[[rules]]"),
        *(section for candidate in candidates for section in _candidate(candidate, offered)),
        _section("[evaluation]"),
        [_line("#   [architecture]", f"{_TABLES['[architecture]'][0].meaning}; manifests/README.md has its keys")],
        _section("[resources]"),
    ]
    text = "\n\n".join("\n".join(section) for section in sections) + "\n"
    text.encode()
    return text


def all_have_calibration(candidates: Sequence[CandidateDraft]) -> bool:
    """Whether there is all that a regression takes."""
    return all(candidate.calibration is not None for candidate in candidates)


def _rules_outside(method: str) -> dict[str, str]:
    """What becomes of parts outside the blocks, of a language model: "combine" is what no key can say."""
    kind = find_method(method)
    assert kind is not None
    made = kind(kind.Options())
    return {part: made.rule_outside(rule) for part, rule in _PUBLISHED.items()}


def _candidate(candidate: CandidateDraft, offered: Collection[str]) -> Iterator[list[str]]:
    named = {"name": candidate.name, "model": candidate.model, "adapter": candidate.adapter}
    yield _section("[[candidates]]", {key: value for key, value in named.items() if value is not None})
    rows = {} if candidate.calibration is None else {"path": candidate.calibration}
    yield _section("[candidates.calibration]", rows, {"path": f"{candidate.name}.jsonl"}, offered=offered)
    held_out = {"path": f"{candidate.name}.heldout.jsonl"}
    shared = _TABLES["[candidates.calibration]"][1].model_fields.keys() - held_out.keys()
    yield _section("[candidates.evaluation]", examples=held_out, without=shared)


def _section(
    header: str,
    settings: Mapping[str, str] | None = None,
    examples: Mapping[str, str] | None = None,
    *,
    without: Collection[str] = (),
    offered: Collection[str] = (),
    alternatives: Collection[str] = (),
) -> list[str]:
    """A table with its keys; commented out where there are no `settings`. `examples` go before the schema's.

    `alternatives` are keys that stand further in, beside those that do so in any manifest.
    """
    settings, examples = settings or {}, examples or {}
    described, table = _TABLES[header]
    alternatives = {*alternatives, *_ALTERNATIVES.get(header, ())} - set(offered)
    if header == "[merge]":  # the options of other methods
        alternatives |= option_fields().keys() - options_of(settings["method"]).keys()
    keys = [_with_default(key, settings.get("method")) for key in keys_of(table) if key.name not in without]
    mark = "#   " if all(key.name in alternatives for key in keys) else "# "
    lines = [header if settings else _line(f"{mark}{header}", _comment(described))]
    for key in keys:
        if key.name in settings:
            lines.append(_line(f"{key.name} = {toml(settings[key.name])}", _comment(key) if key.choices else ""))
        else:
            mark = "#   " if key.name in alternatives else "# "
            value = toml(examples.get(key.name)) or key.value or key.example
            is_example = not (key.default or key.name in examples)
            lines.append(_line(f"{mark}{key.name} = {value}", ("example: " if is_example else "") + _comment(key)))
    return lines


def _with_default(key: Key, method: str | None) -> Key:
    """The key with the default that it has with a method: methods share options and differ in their defaults."""
    field = options_of(method).get(key.name) if method is not None else None
    return key if field is None else key_of(key.name, field)


def _comment(key: Key) -> str:
    text = f"{' | '.join(key.choices)}; {key.meaning}" if key.choices else key.meaning
    return text if key.default == key.value else f"{text}; default: {key.default}"


def _line(setting: str, comment: str) -> str:
    """A line with its comment in the column of comments; a long comment goes on in the lines below."""
    first, next_ = f"{setting:<{_COLUMN - 1}} # ", f"{'':<{_COLUMN}}# "
    lines = wrap(comment, _WIDTH, initial_indent=first, subsequent_indent=next_, break_on_hyphens=False)
    return "\n".join(lines) or setting

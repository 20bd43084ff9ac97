"""Contradictions between the keys of a manifest. Reads no files.

A draft is the parsed TOML with None in place of every invalid value, so that one pass reports the problems of the
values and the contradictions between the valid ones.
"""

from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from itertools import combinations
from typing import Any

from regstream.manifest.messages import Location, Problem, element_label, format_value, nearest_word
from regstream.methods import METHODS, find_method
from regstream.methods.method import Method

Draft = Mapping[str, Any]
ROW_TABLES = ("calibration", "evaluation")
#: The keys of `[merge.others]` that name a part of the model, and what they say besides a candidate's name.
PARTS = ("embeddings", "final_norm", "head", "towers")
PART_USES = ("base", "average")


def draft_without(raw: Draft, locations: Iterable[Location]) -> Draft:
    """A copy of the manifest with None at each of the locations; missing keys stay missing."""
    draft = deepcopy(dict(raw))
    for *parents, last in locations:
        container: Any = draft
        for key in parents:
            container = container[key]
        if last in (container if isinstance(container, dict) else range(len(container))):
            container[last] = None
    return draft


def table(draft: Draft, key: str) -> Draft:
    """The table at a key; empty if it is missing or invalid."""
    return draft.get(key) or {}


def tables(draft: Draft, key: str) -> list[Draft]:
    """The array of tables at a key; empty if it is missing or invalid, as is each invalid table in it."""
    return [entry or {} for entry in draft.get(key) or []]


def consistency_problems(draft: Draft) -> Iterator[Problem]:
    """Every contradiction between keys of the manifest."""
    method = _method(table(draft, "merge"))
    yield from _without_base(draft, method)
    yield from _number_of_candidates(draft, method)
    yield from _rules_without_regression(draft, method)
    yield from _prior_model(table(draft, "merge"), method)
    yield from _architecture(table(draft, "architecture"))
    yield from _repeated_names(draft)
    yield from _other_parts(draft)
    for index, candidate in enumerate(tables(draft, "candidates")):
        yield from _candidate(("candidates", index), candidate, method)


def _method(merge: Draft) -> Method | None:
    """The method that the table names, with those of its options that are valid."""
    if (found := find_method(merge.get("method"))) is None:
        return None
    given = {key: merge[key] for key in found.Options.model_fields if merge.get(key) is not None}
    return found(found.Options.model_construct(**given))


def _without_base(draft: Draft, method: Method | None) -> Iterator[Problem]:
    """What a merge needs a base for, where none is named."""
    if "base" in table(draft, "merge") or "merge" not in draft:
        return
    if method is None or method.needs_base:
        *others, last = (f'"{name}"' for name, kind in METHODS.items() if not kind.needs_base)
        text = "missing; expected a folder or a hub id: the checkpoint that the candidates were fine-tuned from"
        yield Problem(("merge", "base"), f"{text}; only {', '.join(others)} and {last} merge without one")
        return
    advice = 'found "base", but [merge] names no base; name one, or write'
    for index, rule in enumerate(tables(draft, "rules")):
        if rule.get("use") == "base":
            yield Problem(("rules", index, "use"), f'{advice} "average"')
    for key, use in table(table(draft, "merge"), "others").items():
        if use == "base":
            other = '"same"' if key == "vocabulary" else '"average" or a candidate\'s name'
            yield Problem(("merge", "others", key), f"{advice} {other}")
    for index, candidate in enumerate(tables(draft, "candidates")):
        if candidate.get("adapter") is not None and "model" not in candidate:
            text = "missing; [merge] names no base that the adapter could be on; name the model under the adapter"
            yield Problem(("candidates", index, "model"), text)


def _number_of_candidates(draft: Draft, method: Method | None) -> Iterator[Problem]:
    least, most = (1, None) if method is None else method.num_candidates
    found = len(tables(draft, "candidates"))
    if method is None or not found or (found >= least and (most is None or found <= most)):
        return
    expected = f"at least {least}" if most is None else f"{least}" if most == least else f"{least} to {most}"
    text = f'expected {expected} [[candidates]] tables with the method "{method.name}", found {found}'
    yield Problem(("candidates",), text)


def _rules_without_regression(draft: Draft, method: Method | None) -> Iterator[Problem]:
    if method is None or method.needs_calibration():
        return
    for index, rule in enumerate(tables(draft, "rules")):
        if rule.get("use") == "regress":
            text = f'found "regress", but the method "{method.name}" regresses nothing; expected "average" or "base"'
            yield Problem(("rules", index, "use"), text)


def _prior_model(merge: Draft, method: Method | None) -> Iterator[Problem]:
    if method is None or merge.get("prior", method) is None:  # which model, if any, is not known
        return
    is_read = method.prior is not None and method.prior.reads_prior_model
    if is_read and "prior_model" not in merge:
        yield Problem(("merge", "prior_model"), 'missing; prior = "model" needs the folder or the hub id of a model')
    elif not is_read and merge.get("prior_model") is not None:
        text = 'only valid with method = "regfilter" and prior = "model"; remove it'
        yield Problem(("merge", "prior_model"), text)


def _architecture(architecture: Draft) -> Iterator[Problem]:
    yield from _repeated_linears(architecture)
    yield from _overlapping_modules(architecture)
    blocks, body = architecture.get("blocks"), architecture.get("body")
    if blocks and body and not blocks.startswith(f"{body}."):
        text = f'expected a module that contains the blocks "{blocks}", or "" for the model itself, found "{body}"'
        yield Problem(("architecture", "body"), text)
    if architecture.get("rows") == "input_ids":
        for key in sorted({"pooled", "class_tokens"} & architecture.keys()):
            yield Problem(("architecture", key), 'only valid with rows = "pixel_values"; remove it')


def _repeated_linears(architecture: Draft) -> Iterator[Problem]:
    seen: set[str] = set()
    for group, linears in enumerate(architecture.get("inputs") or []):
        for index, linear in enumerate(linears or []):
            if linear in seen:
                yield Problem(("architecture", "inputs", group, index), f'"{linear}" is listed twice')
            seen.add(linear)


def _overlapping_modules(architecture: Draft) -> Iterator[Problem]:
    """Each module outside the blocks may belong to one part only."""
    modules: list[tuple[Location, str | None]] = [
        (("architecture", part, index), name)
        for part in PARTS
        for index, name in enumerate(architecture.get(part) or [])
    ]
    blocks = architecture.get("blocks")
    outside: list[tuple[Location, str]] = []
    for location, name in modules:
        if name and blocks and (_within(blocks, name) or _within(name, blocks)):
            relation = "contains" if _within(blocks, name) else "is inside"
            yield Problem(location, f'"{name}" {relation} the blocks "{blocks}"; list modules outside the blocks')
        elif name:
            outside.append((location, name))
    for (_, one), (location, other) in combinations(outside, 2):
        if _within(one, other) or _within(other, one):
            text = f'"{other}" is listed twice' if one == other else f'"{other}" and "{one}" overlap'
            yield Problem(location, f"{text}; a module belongs to one part only")


def _within(name: str, module: str) -> bool:
    return f"{name}.".startswith(f"{module}.")


def _repeated_names(draft: Draft) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for index, candidate in enumerate(tables(draft, "candidates")):
        if (name := candidate.get("name")) is None:
            continue
        # Folders are named after candidates, and some file systems ignore case.
        earlier = first.setdefault(name.casefold(), index)
        if earlier != index:
            other = element_label("candidates", earlier, draft)
            text = f"found the name of {other}; names must differ in more than case"
            yield Problem(("candidates", index, "name"), text)


def _other_parts(draft: Draft) -> Iterator[Problem]:
    """Parts outside the blocks that are neither the base's nor the mean nor those of a candidate."""
    names = [name for candidate in tables(draft, "candidates") if (name := candidate.get("name"))]
    for index, candidate in enumerate(tables(draft, "candidates")):
        if candidate.get("name") in PART_USES:
            text = f'"{candidate["name"]}" has a meaning of its own in [merge.others]; choose another name'
            yield Problem(("candidates", index, "name"), text)
    for part, use in table(table(draft, "merge"), "others").items():
        if part not in PARTS or use is None or use in (*PART_USES, *names):
            continue
        guess = nearest_word(use, (*PART_USES, *names))
        correction = f'; did you mean "{guess}"?' if guess else ""
        text = f'expected "base", "average" or a candidate\'s name, found {format_value(use)}{correction}'
        yield Problem(("merge", "others", part), text)


def _candidate(location: Location, candidate: Draft, method: Method | None) -> Iterator[Problem]:
    if not candidate:
        return
    if "model" not in candidate and "adapter" not in candidate:
        yield Problem(location, 'expected "model", "adapter", or both, found neither')
    if method is not None and method.needs_calibration() and "calibration" not in candidate:
        yield Problem(
            (*location, "calibration"), f'missing; "{method.name}" needs a calibration set for every candidate'
        )
    for key in ROW_TABLES:
        if candidate.get(key) is not None:
            yield from _rows_source((*location, key), candidate[key])
    if {"head", "classes"} <= table(candidate, "evaluation").keys():
        yield Problem((*location, "evaluation"), 'expected "head" or "classes", found both')


def _rows_source(location: Location, rows: Draft) -> Iterator[Problem]:
    if "path" not in rows and "dataset" not in rows:
        yield Problem(location, 'expected "path" or "dataset", found neither')
    if "path" in rows and "dataset" in rows:
        yield Problem(location, 'expected "path" or "dataset", found both')
    if "path" in rows and "dataset" not in rows:
        for key in sorted({"config", "split", "revision"} & rows.keys()):
            yield Problem((*location, key), 'only valid with "dataset", but the rows come from "path"; remove it')
    if rows.get("images") is not None and rows.get("field") == "input_ids":
        yield Problem((*location, "images"), 'only valid with a field of text or "messages"; remove it')

"""Contradictions between the keys of a manifest. Reads no files."""

from collections.abc import Iterator, Sequence
from itertools import combinations

from regstream.manifest.base_and_candidates import base_and_candidates
from regstream.manifest.draft import Draft, table, tables
from regstream.manifest.messages import Location, Problem, element_label, format_value, nearest_word
from regstream.manifest.method_options import option_fields
from regstream.manifest.rule_table import OF_CANDIDATE
from regstream.manifest.tokenizer_keys import tokenizer_problems
from regstream.methods import find_method
from regstream.methods.by_block import numbers_by_block
from regstream.methods.method import Method

ROW_TABLES = ("calibration", "evaluation")
#: The keys of `[merge.others]` that name a part of the model, and what they say besides a candidate's name.
PARTS = ("embeddings", "final_norm", "head", "towers")
PART_USES = ("base", "average")


def consistency_problems(draft: Draft) -> Iterator[Problem]:
    """Every contradiction between keys of the manifest."""
    method = _method(table(draft, "merge"))
    yield from base_and_candidates(draft, method)
    yield from _rules_without_regression(draft, method)
    names = [name for candidate in tables(draft, "candidates") if (name := candidate.get("name"))]
    for index, rule in enumerate(tables(draft, "rules")):
        yield from _rule(("rules", index), rule, method, names)
    yield from _prior_model(table(draft, "merge"), method)
    yield from _architecture(table(draft, "architecture"))
    yield from _repeated_names(draft)
    yield from _other_parts(draft)
    yield from tokenizer_problems(table(draft, "merge"), _candidate_names(draft))
    for index, candidate in enumerate(tables(draft, "candidates")):
        yield from _candidate(("candidates", index), candidate, method)


def _method(merge: Draft) -> Method | None:
    """The method that the table names, with those of its options that are valid."""
    if (found := find_method(merge.get("method"))) is None:
        return None
    given = {key: merge[key] for key in found.Options.model_fields if merge.get(key) is not None}
    varying = {key for key, value in given.items() if isinstance(value, list)}  # what they are decides nothing here
    return found(found.Options.model_construct(**{key: given[key] for key in given.keys() - varying}))


def _rules_without_regression(draft: Draft, method: Method | None) -> Iterator[Problem]:
    if method is None or method.needs_calibration():
        return
    for index, rule in enumerate(tables(draft, "rules")):
        if rule.get("use") == "regress":
            text = f'found "regress", but the method "{method.name}" regresses nothing; expected "average" or "base"'
            yield Problem(("rules", index, "use"), text)


def _rule(location: Location, rule: Draft, method: Method | None, names: Sequence[str]) -> Iterator[Problem]:
    """A rule that gives nothing, or something that it cannot give."""
    options = [key for key in option_fields() if key in rule and not (key in OF_CANDIDATE and "candidate" in rule)]
    if rule and not {"use", "candidate", *OF_CANDIDATE, *options} & rule.keys():
        own = '"weight", "scale" or "density"'
        text = f'gives nothing; expected "use", a number of the method, or "candidate" with its {own}'
        yield Problem(location, text)
    if method is not None:
        fixed = method.Options.model_fields.keys() - numbers_by_block(type(method).Options)
        for key in (key for key in options if key in fixed):
            yield Problem((*location, key), "one for all parameters; set it in [merge]")
    if "candidate" not in rule:
        if "weight" in rule:
            yield Problem((*location, "candidate"), 'missing; expected the name of the candidate whose "weight" it is')
        return
    if not {*OF_CANDIDATE} & rule.keys():
        yield Problem((*location, "candidate"), 'expected "weight", "scale" or "density" with it, found none')
    for key in ("use", *options):
        if key in rule:
            yield Problem((*location, key), "not of one candidate; give it in a rule without candidate")
    if (name := rule["candidate"]) is not None and name not in names:
        guess = nearest_word(name, names)
        correction = f'; did you mean "{guess}"?' if guess else ""
        yield Problem((*location, "candidate"), f"expected a candidate's name, found {format_value(name)}{correction}")


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


def _candidate_names(draft: Draft) -> list[str]:
    return [name for candidate in tables(draft, "candidates") if (name := candidate.get("name"))]


def _other_parts(draft: Draft) -> Iterator[Problem]:
    """Parts outside the blocks that are neither the base's nor the mean nor those of a candidate."""
    names = _candidate_names(draft)
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
    if rows.get("target") is not None and rows.get("field") == "alpaca":
        text = 'found "alpaca", whose text holds the output; with a target, write "{instruction}\\n{input}"'
        yield Problem((*location, "field"), text)
    if rows.get("images") is not None and rows.get("field") == "input_ids":
        yield Problem((*location, "images"), 'only valid with a field of text or "messages"; remove it')

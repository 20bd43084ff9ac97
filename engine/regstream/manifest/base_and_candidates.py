"""What a method needs: a base, and a number of candidates. Reads no files."""

from collections.abc import Iterator

from regstream.manifest.draft import Draft, table, tables
from regstream.manifest.messages import Problem
from regstream.methods import METHODS
from regstream.methods.method import Method


def base_and_candidates(draft: Draft, method: Method | None) -> Iterator[Problem]:
    """What is said of a base that is not there, and too many or too few candidates."""
    yield from _without_base(draft, method)
    yield from _number_of_candidates(draft, method)


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

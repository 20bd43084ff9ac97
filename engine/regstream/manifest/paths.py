"""Whether the places a manifest names are there, and whether what is written stays clear of what is read."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from regstream.manifest.consistency import SETS, Draft, table, tables
from regstream.manifest.messages import Location, Problem, shown
from regstream.manifest.references import as_seen_from, exists, is_folder, locate, model_reference, nearest_name, real
from regstream.manifest.schema import STATE

SUFFIXES = (".jsonl", ".txt", ".parquet", ".safetensors")
#: What an evaluation names besides its rows, with the suffix of each.
_HEADS = {"head": ".safetensors", "classes": ".toml"}
#: A model's page on the hub, or the address that huggingface_hub's own file system has.
_HUB_ADDRESS = re.compile(r"(?:https?://(?:[^/@]*@)?(?:huggingface\.co|hf\.co)/|hf://)([\w.-]+/[\w.-]+)")


class _Source(NamedTuple):
    """Something that is read: where the manifest names it, as what text, what to call it, where it lies."""

    location: Location
    text: str
    title: str
    path: Path


def misplaced(draft: Draft, manifest: Path) -> Iterator[Problem]:
    """Every place that is missing, of a kind that cannot be read, or in the way. `manifest` is the file itself."""
    models = list(_models(draft, manifest.parent))
    rows = list(_rows(draft, manifest.parent))
    heads = list(_heads(draft, manifest.parent))
    for model in models:
        yield from _missing_folder(model)
    yield from _mistaken_for_the_hub(draft, manifest.parent)
    for source in rows:
        yield from _unreadable_rows(source)
    for head in heads:
        yield from _unreadable_head(head, _HEADS[str(head.location[-1])])
    read = [*models, *rows, *heads, _Source((), manifest.name, "this manifest", manifest)]
    output = _written(draft, ("merge", "output"), manifest.parent)
    workdir = _written(draft, ("resources", "workdir"), manifest.parent)
    if output is not None:
        yield from _in_the_way(("merge", "output"), output, read)
    if workdir is not None:
        # A run makes a folder of its own in it, so that inputs may stand beside that.
        yield from _in_the_way(("resources", "workdir"), workdir, read, may_contain=True)
        if output is not None and real(workdir).is_relative_to(real(output / STATE)):
            told = f"{workdir} is where a run keeps its state without this key; leave the key out"
            yield Problem(("resources", "workdir"), told)


def _models(draft: Draft, folder: Path) -> Iterator[_Source]:
    for location, text, title in _named_models(draft):
        if (path := model_reference(text, folder).folder) is not None:
            yield _Source(location, text, title, path)


def _named_models(draft: Draft) -> Iterator[tuple[Location, str, str]]:
    named: list[tuple[Location, str | None, str]] = [(("merge", "base"), table(draft, "merge").get("base"), "the base")]
    named += [
        (("candidates", index, key), candidate.get(key), f"the {key} of candidates[{index}]")
        for index, candidate in enumerate(tables(draft, "candidates"))
        for key in ("model", "adapter")
    ]
    named.append((("evaluation", "text_tower"), table(draft, "evaluation").get("text_tower"), "the text tower"))
    for location, text, title in named:
        if text is not None:
            yield location, text, title


def _rows(draft: Draft, folder: Path) -> Iterator[_Source]:
    for index, candidate in enumerate(tables(draft, "candidates")):
        for key in SETS:
            if (text := table(candidate, key).get("path")) is not None:
                location = ("candidates", index, key, "path")
                yield _Source(location, text, f"the {key} set of candidates[{index}]", locate(text, folder))


def _heads(draft: Draft, folder: Path) -> Iterator[_Source]:
    for index, candidate in enumerate(tables(draft, "candidates")):
        for key in _HEADS:
            if (text := table(candidate, "evaluation").get(key)) is not None:
                location = ("candidates", index, "evaluation", key)
                yield _Source(location, text, f"the {key} of candidates[{index}]", locate(text, folder))


def _written(draft: Draft, location: tuple[str, str], folder: Path) -> Path | None:
    text = table(draft, location[0]).get(location[1])
    return None if text is None else locate(text, folder)


def _mistaken_for_the_hub(draft: Draft, folder: Path) -> Iterator[Problem]:
    """Names of the hub's form that are rather folders that are not there; with a revision they are the hub's."""
    made = {_written(draft, place, folder) for place in (("merge", "output"), ("resources", "workdir"))}
    for location, text, _ in _named_models(draft):
        reference = model_reference(text, folder)
        if reference.hub_id is None or reference.revision is not None:
            continue
        path, here = locate(text, folder), locate(text, Path.cwd())
        advice = f'for the hub\'s model of that name write "{text}@main"'
        if exists(here):
            told = f"it lies in the current folder, and places are relative to the manifest; there is no {path}"
            meant = shown(as_seen_from(folder, f"./{text}", Path.cwd()))
            yield Problem(location, f"found {shown(text)}: {told}; write {meant}, or {advice}")
        elif is_folder(path.parent) and any(entry not in made for entry in path.parent.iterdir()):
            told = f"expected a folder or a hub id, found {shown(text)}; there is no {path}"
            yield Problem(location, f"{told}{_nearest(path)}; {advice}")


def _nearest(path: Path) -> str:
    found = nearest_name(path)
    return f"; the nearest is {found}" if found else ""


def _missing_folder(model: _Source) -> Iterator[Problem]:
    if exists(model.path) and not is_folder(model.path):
        yield Problem(model.location, f"expected a folder, found the file {model.path}")
    elif "://" in model.text:
        text = f'expected a folder or a hub id "org/name", found the address {shown(model.text)}'
        yield Problem(model.location, text + ("" if (name := _on_the_hub(model.text)) is None else f'; write "{name}"'))
    elif not exists(model.path):
        text = f'expected a folder or a hub id "org/name", found {shown(model.text)}; there is no {model.path}'
        yield Problem(model.location, text + _nearest(model.path))


def _on_the_hub(address: str) -> str | None:
    found = _HUB_ADDRESS.match(address)
    return found[1] if found else None


def _unreadable_rows(rows: _Source) -> Iterator[Problem]:
    if is_folder(rows.path):
        return
    if rows.path.suffix not in SUFFIXES:
        text = f"expected a file ending in {', '.join(SUFFIXES)}, or a folder of images, found {shown(rows.text)}"
        yield Problem(rows.location, text if exists(rows.path) else f"{text}; there is no {rows.path}")
    elif not exists(rows.path):
        text = f"expected a file, found {shown(rows.text)}; there is no {rows.path}{_nearest(rows.path)}"
        yield Problem(rows.location, text)


def _unreadable_head(head: _Source, suffix: str) -> Iterator[Problem]:
    if head.path.suffix != suffix or not exists(head.path) or is_folder(head.path):
        there = "" if exists(head.path) else f"; there is no {head.path}"
        yield Problem(head.location, f"expected a {suffix} file, found {shown(head.text)}{there}")


def _in_the_way(
    location: Location, written: Path, read: list[_Source], *, may_contain: bool = False
) -> Iterator[Problem]:
    if exists(written) and not is_folder(written):
        yield Problem(location, f"expected a folder, found the file {written}")
        return
    for source in read:
        relation = _relation(written, source.path)
        if relation and not (may_contain and relation == "contains"):
            yield Problem(
                location, f"{written} {relation} {source.title}, {source.path}; choose a folder apart from it"
            )


def _relation(written: Path, read: Path) -> str | None:
    """By path, and by what the file system says is one folder: it may be spelled in several ways, or mounted twice."""
    written, read = real(written), real(read)
    if written == read or _same(written, read):
        return "is also"
    if written.is_relative_to(read) or any(_same(parent, read) for parent in written.parents):
        return "is inside"
    if read.is_relative_to(written) or any(_same(parent, written) for parent in read.parents):
        return "contains"
    return None


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False

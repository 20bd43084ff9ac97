"""Checks that the paths of a manifest exist, and that its outputs do not overlap its inputs."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from regstream.manifest.class_lists import class_list_path
from regstream.manifest.consistency import ROW_TABLES
from regstream.manifest.draft import Draft, table, tables
from regstream.manifest.messages import Location, Problem, format_value
from regstream.manifest.references import (
    absolute_path,
    exists,
    is_folder,
    nearest_path,
    parse_model_ref,
    rebase_reference,
    resolve_links,
)
from regstream.manifest.value_types import TEMPLATE_SUFFIX, is_template_file
from regstream.storage.run_folder import STATE

_ROW_SUFFIXES = (".jsonl", ".json", ".csv", ".txt", ".parquet", ".safetensors")
#: The suffix of each file that an evaluation table can name besides its rows.
_HEAD_SUFFIXES = {"head": ".safetensors", "classes": ".toml"}
#: A URL of a model on the hub, or of huggingface_hub's file system.
_HUB_URL = re.compile(r"(?:https?://(?:[^/@]*@)?(?:huggingface\.co|hf\.co)/|hf://)([\w.-]+/[\w.-]+)")


class _Input(NamedTuple):
    """A file or folder that a run reads: its key and text in the manifest, its name in messages, and its path."""

    location: Location
    text: str
    title: str
    path: Path


def path_problems(draft: Draft, folder: Path, manifest: Path | None) -> Iterator[Problem]:
    """Every input that is missing or of the wrong type, and every output that overlaps an input or the manifest.

    Paths are relative to `folder`; `manifest` is the file of the manifest, if it has one.
    """
    models = list(_model_inputs(draft, folder))
    rows = list(_file_inputs(draft, folder, {(key, "path"): f"{key} set" for key in ROW_TABLES}))
    heads = list(_file_inputs(draft, folder, {("evaluation", key): key for key in _HEAD_SUFFIXES}))
    templates = list(_template_inputs(draft, folder))
    inputs = [*models, *rows, *heads, *templates]
    if manifest is not None:
        inputs.append(_Input((), manifest.name, "this manifest", manifest))
    output = _output_path(draft, ("merge", "output"), folder)
    workdir = _output_path(draft, ("resources", "workdir"), folder)
    # What is named as an input and an output is one mistake, whether or not it exists yet.
    outputs = {file.location for file in inputs if any(_is_output(file, path) for path in (output, workdir))}
    for model in (model for model in models if model.location not in outputs):
        yield from _model_folder_problems(model)
    yield from _missing_folders_like_hub_ids(draft, folder)
    for file in (file for file in rows if file.location not in outputs):
        yield from _rows_problems(file)
    for head in (head for head in heads if head.location not in outputs):
        yield from _head_problems(head, _HEAD_SUFFIXES[str(head.location[-1])])
    for template in templates:
        yield from _head_problems(template, TEMPLATE_SUFFIX)
    if output is not None:
        yield from _overlap_problems(("merge", "output"), output, inputs)
    if workdir is not None:
        # A run creates its own folder in the workdir, which may therefore contain inputs.
        yield from _overlap_problems(("resources", "workdir"), workdir, inputs, may_contain=True)
        if output is not None and resolve_links(workdir).is_relative_to(resolve_links(output / STATE)):
            text = f"{workdir} is the default folder for a run's state; remove the key"
            yield Problem(("resources", "workdir"), text)


def _model_inputs(draft: Draft, folder: Path) -> Iterator[_Input]:
    for location, text, title in _model_texts(draft):
        if (path := parse_model_ref(text, folder).folder) is not None:
            yield _Input(location, text, title, path)


def _model_texts(draft: Draft) -> Iterator[tuple[Location, str, str]]:
    """The location, text and title of each reference to a model."""
    if (base := table(draft, "merge").get("base")) is not None:
        yield ("merge", "base"), base, "the base"
    if (prior := table(draft, "merge").get("prior_model")) is not None:
        yield ("merge", "prior_model"), prior, "the prior model"
    for index, candidate in enumerate(tables(draft, "candidates")):
        for key in ("model", "adapter"):
            if (text := candidate.get(key)) is not None:
                yield ("candidates", index, key), text, f"the {key} of candidates[{index}]"
    if (tower := table(draft, "evaluation").get("text_tower")) is not None:
        yield ("evaluation", "text_tower"), tower, "the text tower"


def _file_inputs(draft: Draft, folder: Path, titles: Mapping[tuple[str, str], str]) -> Iterator[_Input]:
    """The files that candidates name in the (table, key) pairs of `titles`."""
    for index, candidate in enumerate(tables(draft, "candidates")):
        for (table_key, key), title in titles.items():
            if (text := table(candidate, table_key).get(key)) is not None:
                location = ("candidates", index, table_key, key)
                path = class_list_path(text, folder) if key == "classes" else absolute_path(text, folder)
                yield _Input(location, text, f"the {title} of candidates[{index}]", path)


def _template_inputs(draft: Draft, folder: Path) -> Iterator[_Input]:
    text = table(draft, "merge").get("chat_template")
    if text is not None and is_template_file(text):
        yield _Input(("merge", "chat_template"), text, "the chat template", absolute_path(text, folder))


def _output_path(draft: Draft, location: tuple[str, str], folder: Path) -> Path | None:
    text = table(draft, location[0]).get(location[1])
    return None if text is None else absolute_path(text, folder)


def _missing_folders_like_hub_ids(draft: Draft, folder: Path) -> Iterator[Problem]:
    """References that parse as hub ids without a revision, but are more likely folders that do not exist."""
    outputs = {_output_path(draft, key, folder) for key in (("merge", "output"), ("resources", "workdir"))}
    for location, text, _ in _model_texts(draft):
        reference = parse_model_ref(text, folder)
        if reference.hub_id is None or reference.revision is not None:
            continue
        path = absolute_path(text, folder)
        advice = f'for the hub model of that name, write "{text}@main"'
        if exists(absolute_path(text, Path.cwd())):
            reason = f"it is in the current folder, but paths are relative to the manifest; there is no {path}"
            correction = format_value(rebase_reference(f"./{text}", Path.cwd(), folder))
            yield Problem(location, f"found {format_value(text)}: {reason}; write {correction}; {advice}")
        elif is_folder(path.parent) and any(entry not in outputs for entry in path.parent.iterdir()):
            problem = f"expected a folder or a hub id, found {format_value(text)}; there is no {path}"
            yield Problem(location, f"{problem}{_suggestion(path)}; {advice}")


def _suggestion(path: Path) -> str:
    nearest = nearest_path(path)
    return f"; the nearest path is {nearest}" if nearest else ""


def _model_folder_problems(model: _Input) -> Iterator[Problem]:
    if exists(model.path) and not is_folder(model.path):
        yield Problem(model.location, f"expected a folder, found the file {model.path}")
    elif "://" in model.text:
        text = f'expected a folder or a hub id "org/name", found the URL {format_value(model.text)}'
        match = _HUB_URL.match(model.text)
        yield Problem(model.location, text + (f'; write "{match[1]}"' if match else ""))
    elif not exists(model.path):
        text = f'expected a folder or a hub id "org/name", found {format_value(model.text)}; there is no {model.path}'
        yield Problem(model.location, text + _suggestion(model.path))


def _rows_problems(rows: _Input) -> Iterator[Problem]:
    if is_folder(rows.path):
        return
    if rows.path.suffix not in _ROW_SUFFIXES:
        expected = f"expected a file ending in {', '.join(_ROW_SUFFIXES)}, or a folder of images"
        text = f"{expected}, found {format_value(rows.text)}"
        yield Problem(rows.location, text if exists(rows.path) else f"{text}; there is no {rows.path}")
    elif not exists(rows.path):
        text = f"expected a file, found {format_value(rows.text)}; there is no {rows.path}{_suggestion(rows.path)}"
        yield Problem(rows.location, text)


def _head_problems(head: _Input, suffix: str) -> Iterator[Problem]:
    if head.path.suffix != suffix or not exists(head.path) or is_folder(head.path):
        missing = "" if exists(head.path) else f"; there is no {head.path}"
        yield Problem(head.location, f"expected a {suffix} file, found {format_value(head.text)}{missing}")


def _overlap_problems(
    location: Location, output: Path, inputs: list[_Input], *, may_contain: bool = False
) -> Iterator[Problem]:
    if exists(output) and not is_folder(output):
        yield Problem(location, f"expected a folder, found the file {output}")
        return
    contained = []
    for file in inputs:
        relation = _relation(output, file.path)
        if relation == "contains":
            contained.append(file)
        elif relation:
            yield Problem(location, f"{output} {relation} {file.title}, {file.path}; choose a separate folder")
    if contained and not may_contain:
        more = f", and {len(contained) - 1} more inputs" if len(contained) > 1 else ""
        text = f"{output} contains {contained[0].title}, {contained[0].path}{more}; choose a separate folder"
        yield Problem(location, text)


def _is_output(file: _Input, output: Path | None) -> bool:
    return output is not None and not exists(file.path) and _relation(output, file.path) == "is also"


def _relation(output: Path, file: Path) -> str | None:
    # The file system is asked too: one folder can have several spellings, or be mounted twice.
    output, file = resolve_links(output), resolve_links(file)
    if output == file or _is_same_file(output, file):
        return "is also"
    if output.is_relative_to(file) or any(_is_same_file(parent, file) for parent in output.parents):
        return "is inside"
    if file.is_relative_to(output) or any(_is_same_file(parent, output) for parent in file.parents):
        return "contains"
    return None


def _is_same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False

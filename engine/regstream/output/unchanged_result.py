"""Whether a manifest's finished result is provably unchanged, with its inputs; found without torch or a plan."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from regstream.errors import RegstreamError
from regstream.manifest.canonical import canonical_config
from regstream.manifest.schema import Manifest
from regstream.output.chosen_settings import with_choice
from regstream.output.integrity import check_file, unrecorded_files
from regstream.output.record import is_for_people, is_published, read_provenance
from regstream.planning.unchanged_inputs import input_digests, local_files
from regstream.storage.identity_differences import differences
from regstream.storage.run_folder import RunFolder


def is_unchanged(manifest: Manifest) -> bool:
    """Whether `run` would find the manifest's merge finished. False: only a plan can tell, and say why.

    Settings are compared with the record, inputs with their digests at publishing, and files of the result by samples.
    """
    try:
        return is_published(manifest.merge.output) and _is_unchanged(with_choice(manifest))
    except (RegstreamError, OSError):
        return False  # a plan meets the same problem and says where it is


def _is_unchanged(manifest: Manifest) -> bool:
    output, record = manifest.merge.output, read_provenance(manifest.merge.output)
    for folder in {manifest.state, manifest.workdir}:
        if RunFolder(folder, output).has_state:
            return False
        RunFolder(folder, output).check()
    return (
        record.get("inputs") is not None
        and manifest.resources.compute_dtype in ("auto", _computed_in(record))
        and not any(differences(_settings(record["identity"]["manifest"]), _settings(canonical_config(manifest))))
        and not unrecorded_files(output, record)
        and record["inputs"] == input_digests(manifest)
        and not _are_shared(_paths_of_result(output, record), _paths_of_inputs(manifest))
        and not any(_problems(output, record))
    )


def _computed_in(record: Mapping[str, Any]) -> str:
    return str(record["identity"].get("dtypes", {}).get("compute")).removeprefix("torch.")


def _settings(canonical: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in canonical.items() if key != "device"}


def _problems(output: Path, record: Mapping[str, Any]) -> Iterator[str]:
    for name, expected in record["files"].items():
        path = output / name
        if path.parent != output and path.parent.is_symlink():
            yield f"{path.parent}: a link"
        if not is_for_people(name):
            yield from check_file(path, expected, whole=False)


def _paths_of_result(output: Path, record: Mapping[str, Any]) -> Iterator[Path]:
    yield from (output / name for name in record["files"])


def _paths_of_inputs(manifest: Manifest) -> Iterator[Path]:
    yield from local_files(manifest)
    for candidate in manifest.candidates:
        if (rows := candidate.evaluation) is not None:
            yield from filter(None, (rows.path, rows.head, rows.classes))


def _are_shared(first: Iterable[Path], second: Iterable[Path]) -> bool:
    """Whether a file is in both, under whatever name."""
    return not _inodes(first).isdisjoint(_inodes(second))


def _inodes(paths: Iterable[Path]) -> set[tuple[int, int]]:
    return {(status.st_dev, status.st_ino) for path in paths if os.path.lexists(path) for status in [path.stat()]}

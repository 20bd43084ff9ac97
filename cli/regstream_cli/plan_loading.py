"""Reads the manifest file of a command and plans its merge."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from regstream.events import Listener
from regstream.manifest.reading import parse_manifest, read_manifest_text
from regstream.manifest.schema import Manifest

if TYPE_CHECKING:
    from regstream.plan.plan import Plan


@dataclass(frozen=True)
class ManifestFile:
    """A manifest with its path and its text, which is read only once: the file may be a pipe."""

    path: Path
    text: str
    manifest: Manifest

    @classmethod
    def read(cls, path: Path) -> "ManifestFile":
        """Read and validate a manifest file.

        Raises:
            ManifestError: as `read_manifest` does.
        """
        text = read_manifest_text(path)
        return cls(path, text, parse_manifest(text, str(path)))


def plan_merge(
    file: ManifestFile,
    *,
    device: str | None,
    commits: Mapping[str, str],
    listener: Listener,
    for_this_machine: bool = True,
) -> "Plan":
    """Plan the merge with `make_plan`; `device` overrides the manifest's."""
    from regstream.plan.planning import make_plan

    return make_plan(
        file.manifest,
        source=file.path.name,
        text=file.text,
        device=device,
        for_this_machine=for_this_machine,
        commits=commits,
        listener=listener,
    )


def plan_evaluation(file: ManifestFile, *, device: str | None, only: Collection[str], listener: Listener) -> "Plan":
    """Plan the merge for an evaluation of all models, or `only` of some.

    If there is a result, hub models are read at the commits that it was merged from.

    Raises:
        ResumeError: the result is to be evaluated, but it belongs to another merge or has been altered.
    """
    from regstream.output.finished import check_result
    from regstream.output.publish import published_commits

    commits = published_commits(file.manifest.merge.output)
    plan = plan_merge(file, device=device, commits=commits, listener=listener)
    if not only or plan.method.name in only:
        check_result(plan)
    return plan

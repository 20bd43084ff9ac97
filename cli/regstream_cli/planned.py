"""The manifest and the plan that a command works with."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from regstream.events import Listener
from regstream.manifest.reading import manifest_from, read_text
from regstream.manifest.schema import Manifest

if TYPE_CHECKING:
    from regstream.plan.plan import Plan


@dataclass(frozen=True)
class Asked:
    """A manifest, and its text as it was read: once, since it may come from a pipe."""

    path: Path
    text: str
    manifest: Manifest

    @classmethod
    def read(cls, path: Path) -> "Asked":
        """Read and check the manifest of a file.

        Raises:
            ManifestError: as `read_manifest` does.
        """
        text = read_text(path)
        return cls(path, text, manifest_from(text, str(path)))


def plan_of(
    asked: Asked,
    *,
    device: str | None,
    commits: Mapping[str, str],
    listener: Listener,
    for_this_machine: bool = True,
) -> "Plan":
    """What the manifest of a file takes, as `make_plan` lays it out; `--device` goes before its own."""
    from regstream.plan.planning import make_plan

    return make_plan(
        asked.manifest,
        device=device,
        for_this_machine=for_this_machine,
        commits=commits,
        listener=listener,
    )


def plan_of_result(asked: Asked, *, device: str | None, only: Collection[str], listener: Listener) -> "Plan":
    """The same at the commits that a result was made at, where there is one.

    Raises:
        ResumeError: the result is among the models that are judged (all, or `only` some) and is another merge's, or not
            what was made.
    """
    from regstream.output.publish import published_commits
    from regstream.output.result_identity import check_result

    commits = published_commits(asked.manifest.merge.output)
    plan = plan_of(asked, device=device, commits=commits, listener=listener)
    if not only or plan.method.name in only:
        check_result(plan)
    return plan

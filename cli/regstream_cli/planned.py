"""The plan that a command works with."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from regstream.events import Listener
from regstream.manifest import Manifest

if TYPE_CHECKING:
    from regstream.plan import Plan


def plan_of(
    path: Path,
    manifest: Manifest,
    *,
    device: str | None,
    commits: Mapping[str, str],
    listener: Listener,
    for_this_machine: bool = True,
) -> "Plan":
    """What the manifest of a file takes, as `make_plan` lays it out; `--device` goes before its own."""
    from regstream.plan import make_plan

    return make_plan(
        manifest,
        source=path.name,
        text=path.read_text("utf-8-sig"),
        device=device,
        for_this_machine=for_this_machine,
        commits=commits,
        listener=listener,
    )


def plan_of_result(path: Path, manifest: Manifest, *, device: str | None, listener: Listener) -> "Plan":
    """The same at the commits that a result was made at, where there is one."""
    from regstream.publish import published_commits

    commits = published_commits(manifest.merge.output)
    return plan_of(path, manifest, device=device, commits=commits, listener=listener)

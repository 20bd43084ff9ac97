"""The plan of a merge whose result is looked at."""

from pathlib import Path
from typing import TYPE_CHECKING

from regstream.events import Listener
from regstream.manifest import Manifest

if TYPE_CHECKING:
    from regstream.plan import Plan


def plan_of_result(path: Path, manifest: Manifest, *, device: str | None, listener: Listener) -> "Plan":
    """What a manifest's merge is made of, at the commits that its result was made at, where there is one."""
    from regstream.plan import make_plan
    from regstream.publish import published_commits

    return make_plan(
        manifest,
        source=path.name,
        text=path.read_text("utf-8-sig"),
        device=device,
        commits=published_commits(manifest.merge.output),
        listener=listener,
    )

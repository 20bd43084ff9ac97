"""A finished merge of the hub's models is confirmed at once where commits are named; a branch may have moved."""

import re
from pathlib import Path

import pytest

from hub_server import Hub, put_on
from merging import Merge, make_merge
from regstream import api
from regstream.output.record import read_provenance


@pytest.fixture
def remote(hub: Hub, tmp_path: Path) -> Merge:
    """A small merge from the hub."""
    (tmp_path / "local").mkdir()
    return put_on(
        hub, make_merge(tmp_path / "local", layers=1, hidden=8, candidates=2, num_rows=4), tmp_path / "remote"
    )


def is_finished(merge: Merge) -> bool:
    return api.is_finished(merge.read())


def test_branches_are_looked_up(remote: Merge) -> None:
    remote.run()
    assert not is_finished(remote)
    assert read_provenance(remote.output)["inputs"] is None


def test_commits_are_not(remote: Merge, hub: Hub) -> None:
    commits = remote.plan().commits
    text = remote.manifest.read_text()
    for name, commit in commits.items():
        text = text.replace(f'"{name}"', f'"{name.partition("@")[0]}@{commit}"')
    remote.manifest.write_text(text)
    remote.run()
    hub.requests.clear()
    assert is_finished(remote)
    assert hub.requests == []
    first = next(iter(commits.values()))
    remote.manifest.write_text(re.sub(first, first[::-1], text, count=1))
    assert not is_finished(remote)

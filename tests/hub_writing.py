"""The part of a hub's protocol that uploads go through: repositories and branches made, files taken, commits."""

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import unquote

Answer = tuple[int, object]


@dataclass
class Repo:
    """A repository: commits of folders, and where its branches stand."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    token: str | None = None
    gated: bool = False

    def commit(self, name: str, files: Mapping[str, bytes], branch: str) -> str:
        """Have a branch stand at these files; the commit."""
        told = repr([(file, sha256(data)) for file, data in sorted(files.items())]) + name
        commit = hashlib.sha1(told.encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.branches[branch] = commit
        return commit


class Written(Protocol):
    """What is written to."""

    repos: dict[str, Repo]
    blobs: dict[str, bytes]
    writer: str | None  # whose token may write
    received: Counter[str]  # bytes of files, by their digest

    @property
    def endpoint(self) -> str:
        """Where it is."""
        ...


def answer(hub: Written, path: str, token: str | None, data: bytes) -> Answer:
    """What the hub says to a request that writes, and to what came with it."""
    if match := re.fullmatch(r"/lfs/upload/([0-9a-f]{64})", path):  # which is signed, and takes no token
        return _take(hub, match[1], data)
    if token is None or token != hub.writer:
        return 401, {"error": "Invalid username or password."}
    asked = [json.loads(line) for line in data.splitlines()]
    if path == "/api/repos/create":
        return _create(hub, asked[0], token)
    if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(branch|preupload|commit)/([^/]+)", path):
        return _of_branch(hub, match[1], match[2], unquote(match[3]), asked)
    return _other(hub, path, asked[0])


def _other(hub: Written, path: str, asked: Mapping[str, Any]) -> Answer:
    if path == "/api/validate-yaml":
        return 200, {"errors": [], "warnings": []}
    if path == "/lfs/verify":
        return (200, {}) if asked["oid"] in hub.blobs else (404, {})
    if path.endswith(".git/info/lfs/objects/batch"):
        return 200, {"transfer": "basic", "objects": [_object(hub, wanted) for wanted in asked["objects"]]}
    return 404, {}


def _of_branch(hub: Written, name: str, what: str, branch: str, asked: Sequence[Mapping[str, Any]]) -> Answer:
    repo = hub.repos.get(name)
    if repo is None:
        return 404, {"error": "Repository not found"}
    if what == "branch":
        return _branch(repo, branch)
    if branch not in repo.branches:
        return 404, {"error": "Revision not found"}
    if what == "preupload":
        return 200, {"files": [_mode(repo, branch, file) for file in asked[0]["files"]]}
    return _commit(hub, name, branch, asked)


def is_large(file: str) -> bool:
    """Whether a file is kept apart from commits."""
    return file.endswith((".safetensors", ".parquet"))


def sha256(data: bytes) -> str:
    """By which large files are known."""
    return hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes) -> str:
    """By which small files are known."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _create(hub: Written, asked: Mapping[str, Any], token: str) -> Answer:
    name = f"{asked['organization']}/{asked['name']}"
    url = {"url": f"{hub.endpoint}/{name}"}
    if name in hub.repos:
        return 409, url
    repo = hub.repos[name] = Repo(token=token if asked.get("visibility") == "private" else None)
    repo.commit(name, {".gitattributes": b"*.safetensors filter=lfs\n"}, "main")
    return 200, url


def _branch(repo: Repo, branch: str) -> Answer:
    if branch in repo.branches:
        return 409, {"error": "Reference already exists"}
    repo.branches[branch] = repo.branches["main"]
    return 200, {}


def _mode(repo: Repo, branch: str, file: Mapping[str, Any]) -> dict[str, object]:
    ignored = b"*.json" in repo.commits[repo.branches[branch]].get(".gitignore", b"")
    mode = "lfs" if is_large(file["path"]) else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": ignored and file["path"].endswith(".json")}


def _object(hub: Written, wanted: Mapping[str, Any]) -> dict[str, object]:
    known = {"oid": wanted["oid"], "size": wanted["size"]}
    if wanted["oid"] in hub.blobs:
        return known
    upload = {"href": f"{hub.endpoint}/lfs/upload/{wanted['oid']}"}
    return known | {"actions": {"upload": upload, "verify": {"href": f"{hub.endpoint}/lfs/verify"}}}


def _take(hub: Written, digest: str, data: bytes) -> Answer:
    if sha256(data) != digest:
        return 400, {"error": "another digest"}
    hub.blobs[digest] = data
    return 200, {}


def _commit(hub: Written, name: str, branch: str, lines: Sequence[Mapping[str, Any]]) -> Answer:
    repo = hub.repos[name]
    files = dict(repo.commits[repo.branches[branch]])
    for line in lines:
        value = line["value"]
        match line["key"]:
            case "file":
                files[value["path"]] = base64.b64decode(value["content"])
            case "lfsFile":
                files[value["path"]] = hub.blobs[value["oid"]]
            case "deletedFile":
                del files[value["path"]]
    commit = repo.commit(name, files, branch)
    return 200, {"commitUrl": f"{hub.endpoint}/{name}/commit/{commit}", "commitOid": commit}

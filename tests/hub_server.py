"""A hub on localhost: folders served as repositories, to clients that download; `hub_writing` has what uploads take.

Faults are scripted: a `Fault` answers the requests whose path it names, as often as it is told to, in place of what
is right. Every request is kept in `requests`, and how many bytes of files were sent in `sent`.
"""

import json
import re
import shutil
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import hub_writing
from hub_writing import Repo, git_sha1, is_large, sha256
from merging import Merge

_CHUNK = 1 << 16


@dataclass
class Fault:
    """What is wrong with requests that match `where`: "GET .*/model-00002.*", "GET /lfs/.* bytes=0-.*"."""

    where: str
    times: int = 1
    status: int = 0
    code: str = ""  # X-Error-Code
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None  # bytes of the body, then the connection is closed
    garbled: bool = False  # other bytes, of the right number
    ignores_range: bool = False
    pause: threading.Event | None = None  # waits for it half way through the body
    paused: threading.Event = field(default_factory=threading.Event)  # set while it waits


@dataclass(frozen=True)
class Request:
    """What was asked for."""

    method: str
    path: str
    range: str | None
    token: str | None

    def __str__(self) -> str:
        return " ".join(filter(None, (self.method, self.path, self.range)))


class Hub(ThreadingHTTPServer):
    """The server; its thread ends with the process."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.sent: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self.writer: str | None = None
        self.lock = threading.Lock()
        self.connections: list[socket.socket] = []

    @property
    def endpoint(self) -> str:
        """For HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, name: str, folder: Path, *, branch: str = "main", token: str | None = None) -> str:
        """Commit a folder to a repository's branch; the commit."""
        files = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
        commit = self.repos.setdefault(name, Repo(token=token)).commit(name, files, branch)
        self.blobs |= {sha256(data): data for file, data in files.items() if is_large(file)}
        return commit

    def asked(self, pattern: str) -> list[Request]:
        """The requests so far that match."""
        return [request for request in self.requests if re.fullmatch(pattern, str(request))]

    def fault_of(self, request: Request) -> Fault | None:
        """The next fault scripted for a request, used up by one."""
        with self.lock:
            for fault in self.faults:
                if fault.times and re.fullmatch(fault.where, str(request)):
                    fault.times -= 1
                    return fault
        return None

    def get_request(self) -> tuple[socket.socket, object]:
        """Remember who is connected."""
        connection, address = super().get_request()
        self.connections.append(connection)
        return connection, address

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: clients that hang up are part of the tests."""


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that answers within the context."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        stop(hub)


def stop(hub: Hub) -> None:
    """Go off the network."""
    hub.shutdown()
    hub.server_close()
    for connection in hub.connections:  # which would be answered for as long as they are kept
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def put_on(hub: Hub, merge: Merge, folder: Path) -> Merge:
    """A merge's checkpoints on the hub, and a manifest in `folder` that names them there."""
    folder.mkdir()
    text = merge.manifest.read_text()
    for path in (merge.folders.base, *merge.folders.candidates):
        hub.add(f"org/{path.name}", path)
        text = text.replace(f'"{path.name}"', f'"org/{path.name}"')
    for rows in merge.manifest.parent.glob("*.jsonl"):
        shutil.copy(rows, folder)
    (folder / "manifest.toml").write_text(text)
    return Merge(folder / "manifest.toml", merge.folders, merge.rows)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._write()

    def do_PUT(self) -> None:
        self._write()

    def _write(self) -> None:
        request, fault = self._asked()
        length = int(self.headers.get("Content-Length") or 0)
        if fault is not None:
            return self._fail(request, fault, length)
        data = self._receive(request.path, length)
        if match := re.fullmatch(r"/api/(datasets/[^/]+/[^/]+)/paths-info/([^/]+)", request.path):
            return self._paths_info(match[1], unquote(match[2]), parse_qs(data.decode())["paths"], request.token)
        status, value = hub_writing.answer(self.server, request.path, request.token, data)
        return self._json(value, status)

    def _fail(self, request: Request, fault: Fault, length: int) -> None:
        if fault.status:
            self._receive(request.path, length)
            return self._refuse(fault.status, fault.code, fault.headers)
        self._receive(request.path, length // 2 if fault.cut_after is None else fault.cut_after)
        if fault.pause is not None:
            fault.paused.set()
            fault.pause.wait(30)
        self.close_connection = True
        self.connection.shutdown(2)
        return None

    def _receive(self, path: str, length: int) -> bytes:
        data = bytearray()
        while len(data) < length and (part := self.rfile.read(min(_CHUNK, length - len(data)))):
            data += part
            self.server.received[path] += len(part)
        return bytes(data)

    def _asked(self) -> tuple[Request, Fault | None]:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        request = Request(self.command, urlsplit(self.path).path, self.headers.get("Range"), token)
        self.server.requests.append(request)
        return request, self.server.fault_of(request)

    def _answer(self) -> None:
        request, fault = self._asked()
        path, token = request.path, request.token
        if fault is not None and fault.status:
            return self._refuse(fault.status, fault.code, fault.headers)
        if match := re.fullmatch(r"/lfs/([0-9a-f]{64})", path):
            return self._body(self.server.blobs[match[1]], {"ETag": f'"{match[1][:32]}"'}, path, fault)
        if match := re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._resolve(match[1], unquote(match[2]), unquote(match[3]), token, fault)
        if match := re.fullmatch(r"/api/(?:models/|(datasets/))([^/]+/[^/]+)(?:/(revision|tree)/(.+?)/?)?", path):
            name, (revision, _, folder) = (match[1] or "") + match[2], (match[4] or "main").partition("/")
            if match[3] == "tree":
                return self._tree(name, unquote(revision), unquote(folder), token)
            return self._revision(name, unquote(revision), token)
        return self._refuse(404, "", {})

    def _repo(self, name: str, token: str | None) -> Repo | None:
        repo = self.server.repos.get(name)
        if repo is not None and repo.gated and token != repo.token:
            self._refuse(403, "GatedRepo", {})
            return None
        if repo is None or (repo.token is not None and token != repo.token):
            self._refuse(401, "RepoNotFound", {})
            return None
        return repo

    def _revision(self, name: str, revision: str, token: str | None) -> None:
        repo = self._repo(name, token)
        if repo is None:
            return
        commit = self._commit(repo, revision)
        if commit is not None:
            files = [{"rfilename": file} for file in repo.commits[commit]]
            self._json({"id": name, "sha": commit, "private": repo.token is not None, "siblings": files})

    def _tree(self, name: str, revision: str, folder: str, token: str | None) -> None:
        files = self._files(name, revision, token)
        if files is None:
            return
        below = {path: data for path, data in files.items() if not folder or path.startswith(f"{folder}/")}
        if "recursive=true" in self.path.lower():
            self._json([_entry(path, below) for path in below])
            return
        depth = folder.count("/") + bool(folder)
        shown = dict.fromkeys("/".join(path.split("/")[: depth + 1]) for path in below)
        self._json([_entry(path, below) for path in shown])

    def _paths_info(self, name: str, revision: str, asked: list[str], token: str | None) -> None:
        files = self._files(name, revision, token)
        if files is not None:
            there = [path for path in asked if path in files or any(file.startswith(f"{path}/") for file in files)]
            self._json([_entry(path, files) for path in there])

    def _files(self, name: str, revision: str, token: str | None) -> dict[str, bytes] | None:
        repo = self._repo(name, token)
        commit = None if repo is None else self._commit(repo, revision)
        return None if repo is None or commit is None else repo.commits[commit]

    def _resolve(self, name: str, revision: str, file: str, token: str | None, fault: Fault | None) -> None:
        repo = self._repo(name, token)
        if repo is None:
            return None
        commit = self._commit(repo, revision)
        if commit is None:
            return None
        data = repo.commits[commit].get(file)
        if data is None:
            return self._refuse(404, "EntryNotFound", {"X-Repo-Commit": commit})
        headers = {"X-Repo-Commit": commit}
        if not is_large(file):
            return self._body(data, headers | {"ETag": f'"{git_sha1(data)}"'}, self.path, fault)
        digest = sha256(data)
        headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data))}
        # On another host, as on the real one: the client follows no further, and sends no token there.
        elsewhere = f"http://localhost:{self.server.server_address[1]}"
        headers |= {"Location": f"{elsewhere}/lfs/{digest}", "Content-Length": "0"}
        self._head(302, headers)
        return None

    def _commit(self, repo: Repo, revision: str) -> str | None:
        commit = repo.branches.get(revision, revision)
        if commit not in repo.commits:
            self._refuse(404, "RevisionNotFound", {})
            return None
        return commit

    def _body(self, data: bytes, headers: Mapping[str, str], path: str, fault: Fault | None) -> None:
        fault = fault or Fault("")
        if fault.garbled:
            data = bytes(byte ^ 0xFF for byte in data)
        begin, status = 0, 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked and not fault.ignores_range:
            begin, end = int(asked[1]), int(asked[2] or len(data) - 1)
            if begin >= len(data):
                return self._refuse(416, "", {"Content-Range": f"bytes */{len(data)}"})
            headers = {**headers, "Content-Range": f"bytes {begin}-{min(end, len(data) - 1)}/{len(data)}"}
            data, status = data[begin : end + 1], 206
        self._head(status, {**headers, "Content-Length": str(len(data)), "Accept-Ranges": "bytes"})
        if self.command == "HEAD":
            return None
        sent = data if fault.cut_after is None else data[: fault.cut_after]
        for start in range(0, len(sent), _CHUNK):
            if fault.pause is not None and start >= len(sent) // 2:
                self.wfile.flush()
                fault.paused.set()
                fault.pause.wait(30)
            self.wfile.write(sent[start : start + _CHUNK])
            self.server.sent[path] += len(sent[start : start + _CHUNK])
        if len(sent) < len(data):
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)
        return None

    def _json(self, value: object, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self._head(status, {"Content-Type": "application/json", "Content-Length": str(len(data))})
        self.wfile.write(data)

    def _refuse(self, status: int, code: str, headers: Mapping[str, str]) -> None:
        self._head(status, {**headers, "Content-Length": "0"} | ({"X-Error-Code": code} if code else {}))

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _entry(path: str, files: Mapping[str, bytes]) -> dict[str, object]:
    """A file, or a folder, as a tree tells of it."""
    if path not in files:
        return {"type": "directory", "path": path, "oid": git_sha1(path.encode())}
    data = files[path]
    entry: dict[str, object] = {"type": "file", "path": path, "size": len(data), "oid": git_sha1(data)}
    return entry | ({"lfs": {"oid": sha256(data), "size": len(data), "pointerSize": 134}} if is_large(path) else {})

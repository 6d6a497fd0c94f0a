"""A Hugging Face Hub on loopback: enough for the real client, unpatched.

    with serving(Hub()) as hub: …        hub.url is what HF_ENDPOINT must be

Model and dataset repositories with commits, branches, tags and pull requests; private ones; files
kept in Git, in LFS or in Xet (`Hub(large="lfs")`); ranged reads; faults on demand.

What it is not: pull requests are a branch and a number; LFS has no multipart uploads; Xet is the
client's own store in a folder (tests/hub_xet.py), not a server; lists come in one page. It has no
gated repositories, no rate limits as the Hub counts them, no roles, no organisations, no check of
cards, no spaces. Of jobs and buckets it has what tests/hub_jobs.py says, and no job runs. It was
written from the client's code and what that asks for, so nothing that passes here is thereby tested
against the live Hub.
"""

import base64
import hashlib
import json
import re
import select
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hub_jobs import Bucket, JobRoutes
from hub_xet import LayoutError, LocalStore

TOKEN = "hf_of_the_tests"
SIGNATURE = "signature_of_the_tests"
"""What lets large files be sent and read without a token."""
LARGE_FILES = (".safetensors", ".zip")
LARGE_FROM = 10 * 2**20
"""Bytes from which a file of any name is large."""


@dataclass
class Repo:
    """Commits by their hash, and what names them; those of `tags` are no branches."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)

    def commit(self, files: dict[str, bytes], *, name: str = "main") -> str:
        """A new state of a branch or tag; its hash."""
        digest = hashlib.sha1(f"{len(self.commits)}".encode())
        for path, content in sorted(files.items()):
            digest.update(path.encode() + content)
        oid = digest.hexdigest()
        self.commits[oid] = dict(files)
        self.names[name] = oid
        return oid


@dataclass
class Fault:
    """What happens `times` times to requests whose 'METHOD path', or 'METHOD path range', matches.

    `status` is answered at once, or `after` what was asked for is done; after it, 0 is no answer at
    all. `delay` is waited before anything is done; a client that goes away meanwhile is not served.
    `cut_after` so many bytes, of the body that is sent or of one that is PUT, the connection ends,
    `stall` seconds later. `wrong_bytes` are as many as the right ones.

    A large file's address only points elsewhere: for its bytes match `/_lfs/`.
    """

    matching: str
    times: int
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    wrong_bytes: bool = False
    after: bool = False
    delay: float = 0.0
    stall: float = 0.0


@dataclass
class Exchange:
    """One request and its answer. `sent` counts the bytes of the answer's body.

    `authorized`: it has a token in its header. `leaks`: it shows the token anywhere else.
    """

    line: str
    host: str
    authorized: bool
    span: str = ""
    leaks: bool = False
    status: int = 0
    sent: int = 0


@dataclass
class Hub:
    """Repositories by name, the requests that were made, and the faults that are to come.

    `large`: how large files are kept: like others, or in LFS, or in Xet. `objects` are the contents
    of the large ones by SHA-256, `xet` their names there.
    """

    repos: dict[str, Repo] = field(default_factory=dict)
    datasets: dict[str, Repo] = field(default_factory=dict)
    large: Literal["", "lfs", "xet"] = ""
    requests: list[str] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    xet: dict[str, str] = field(default_factory=dict)
    xet_trouble: str = ""
    buckets: dict[str, Bucket] = field(default_factory=dict)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    store: LocalStore | None = None
    changed: threading.Condition = field(default_factory=threading.Condition)
    closing: threading.Event = field(default_factory=threading.Event)

    def arrive(self, exchange: Exchange) -> Fault | None:
        """Note a request, and find what is to happen to it."""
        with self.changed:
            self.requests.append(exchange.line)
            self.exchanges.append(exchange)
            self.changed.notify_all()
            told = f"{exchange.line} {exchange.span}".strip()
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.matching, told):
                    fault.times -= 1
                    return fault
        return None

    def wait_for(self, matching: str, *, times: int = 1, timeout: float = 60) -> None:
        """Wait until so many requests that match have arrived; they may still be unanswered."""

        def arrived() -> bool:
            return sum(bool(re.search(matching, line)) for line in self.requests) >= times

        with self.changed:
            if not self.changed.wait_for(arrived, timeout):
                raise TimeoutError(f"no request '{matching}' in {timeout} s: {self.requests}")

    def is_large(self, path: str, size: int) -> bool:
        """Whether a file is kept beside Git."""
        return bool(self.large and size and (path.endswith(LARGE_FILES) or size > LARGE_FROM))

    def elsewhere(self, sha256: str) -> str:
        """Where a large file is sent to and read from: a host of another name, as on the Hub."""
        return f"{self.url.replace('127.0.0.1', 'localhost')}/_lfs/{sha256}?by={SIGNATURE}"


class Handler(JobRoutes, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub
    fault: Fault | None
    exchange: Exchange
    allowed: bool
    sent_body: bytes

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""

    # Answers

    def answer(
        self, status: int, content: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        if self.fault is not None and self.fault.after:  # done, but the answer is another one
            status, content, headers = self.fault.status, b'{"error": "as asked for"}', None
            if not status:
                self.close_connection = True
                return
        self.begin(status, len(content), headers or {})
        if self.command != "HEAD":
            self.write(content)

    def begin(self, status: int, size: int, headers: dict[str, str]) -> None:
        self.exchange.status = status
        self.send_response(status)
        for name, value in {"Content-Length": str(size), **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def write(self, content: bytes) -> None:
        self.exchange.sent += len(content)  # before the client can act on it
        self.wfile.write(content)

    def answer_json(self, document: object) -> None:
        self.answer(200, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def refuse(self, status: int, code: str) -> None:
        content = json.dumps({"error": code}).encode()
        self.answer(status, content, {"X-Error-Code": code, "X-Error-Message": code})

    def send_content(self, content: bytes, headers: dict[str, str]) -> None:
        """A file or the part of it that was asked for, with what a fault does to it."""
        fault = self.fault or Fault("", 0)
        size = len(content)
        if fault.wrong_bytes:
            content = bytes(255 - byte for byte in content)
        status, headers = 200, {**headers, "Accept-Ranges": "bytes"}
        span = re.fullmatch(r"bytes=(\d*)-(\d*)", self.exchange.span)
        if span and (span[1] or span[2]):
            start = int(span[1]) if span[1] else max(0, size - int(span[2]))
            end = min(int(span[2]), size - 1) if span[1] and span[2] else size - 1
            if start > end:
                self.answer(416, b"", {"Content-Range": f"bytes */{size}"})
                return
            status, content = 206, content[start : end + 1]
            headers["Content-Range"] = f"bytes {start}-{end}/{size}"
        if fault.cut_after is None or self.command == "HEAD":
            self.answer(status, content, headers)
            return
        self.begin(status, len(content), headers)
        self.write(content[: fault.cut_after])
        self.linger(fault.stall)
        self.close_connection = True

    # Requests

    def handle_any(self) -> None:
        token = self.headers.get("authorization")
        others = [value for name, value in self.headers.items() if name.lower() != "authorization"]
        self.exchange = Exchange(
            line=f"{self.command} {self.path}",
            host=self.headers.get("Host", ""),
            authorized=token is not None,
            span=self.headers.get("Range", ""),
            leaks=TOKEN in " ".join([self.path, *others]),
        )
        self.allowed = token == f"Bearer {TOKEN}"
        self.fault = fault = self.hub.arrive(self.exchange)
        if fault is not None and fault.cut_after is not None and self.command == "PUT":
            self.rfile.read(fault.cut_after)
            self.linger(fault.stall)
            self.close_connection = True
            return
        self.sent_body = self.body()
        self.exchange.leaks |= TOKEN.encode() in self.sent_body
        if fault is not None and fault.delay and not self.linger(fault.delay):
            self.close_connection = True
            return
        if fault is not None and fault.status and not fault.after:
            document = {"error": "as asked for", "url": self.hub.url}
            self.answer(fault.status, json.dumps(document).encode(), fault.headers)
            return
        self.route(urlsplit(self.path).path)

    def do_GET(self) -> None:
        self.handle_any()

    def do_HEAD(self) -> None:
        self.handle_any()

    def do_POST(self) -> None:
        self.handle_any()

    def do_PUT(self) -> None:
        self.handle_any()

    def do_DELETE(self) -> None:
        self.handle_any()

    def body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def linger(self, seconds: float) -> bool:
        """Wait as long as the client does; False if it went away."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self.hub.closing.wait(min(left, 0.05)):
            readable, _, _ = select.select([self.connection], [], [], 0)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                return False
        return True

    def route(self, path: str) -> None:
        """By the path as it came: a revision may hold %2F."""
        if path == "/api/validate-yaml":
            self.answer_json({"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            self.create_repo(json.loads(self.sent_body))
        elif path.startswith(("/api/whoami-v2", "/api/jobs/", "/api/buckets/", "/buckets/")):
            self.job_api(path)
        elif found := re.fullmatch(r"/_lfs/([0-9a-f]{64})", path):
            self.object(found[1])
        elif found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)\.git/info/lfs/(.+)", path):
            if self.find_repo(found[1] or "", found[2], write=True):
                self.large_files(path, found[3])
        elif found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            if repo := self.find_repo(found[1] or "", found[2]):
                self.file(repo, unquote(found[3]), unquote(found[4]))
        elif found := re.fullmatch(
            r"/api/(models|datasets)/([^/]+/[^/]+)(?:/([^/]+)/?(.*))?", path
        ):
            self.repo_api(found[1], found[2], found[3] or "revision", found[4] or "main")
        else:
            self.refuse(404, f"NotRouted: {self.command} {path}")

    def find_repo(self, kind: str, name: str, *, write: bool = False) -> Repo | None:
        """A repository that the asking one may see and change; answered with an error else."""
        repo = (self.hub.datasets if "dataset" in kind else self.hub.repos).get(name)
        if repo is None or ((repo.private or write) and not self.allowed):
            self.refuse(404 if self.allowed else 401, "RepoNotFound")
            return None
        return repo

    # Repositories

    def create_repo(self, asked: dict[str, Any]) -> None:
        if not self.allowed:
            self.refuse(401, "Unauthorized")
            return
        name = "/".join(part for part in (asked.get("organization"), asked["name"]) if part)
        dataset = asked.get("type") == "dataset"
        kept = self.hub.datasets if dataset else self.hub.repos
        url = f"{self.hub.url}/{'datasets/' if dataset else ''}{name}"
        if name in kept:
            self.answer(409, json.dumps({"error": "exists", "url": url}).encode())
            return
        private = asked.get("private", False) or asked.get("visibility") == "private"
        kept[name] = Repo(private=bool(private))
        kept[name].commit({".gitattributes": b""})
        self.answer_json({"url": url, "name": name, "id": "1"})

    def repo_api(self, kind: str, name: str, what: str, rest: str) -> None:
        writes = ("preupload", "commit", "tag", "xet-write-token")
        repo = self.find_repo(kind, name, write=what in writes)
        if repo is None:
            return
        if what == "refs":
            self.refs(repo)
            return
        if what == "tag" and self.command == "DELETE":
            repo.tags.discard(unquote(rest))
            found = repo.names.pop(unquote(rest), None)
            self.answer_json({}) if found else self.refuse(404, "RevisionNotFound")
            return
        asked, _, below = rest.partition("/")
        revision, below = unquote(asked), unquote(below)
        oid = repo.names.get(revision, revision)
        if oid not in repo.commits:
            self.refuse(404, "RevisionNotFound")
            return
        files = repo.commits[oid]
        if what == "revision":
            self.answer_json(
                {
                    "id": name,
                    "modelId": name,
                    "sha": oid,
                    "private": repo.private,
                    "siblings": self.siblings(files),
                    "tags": [],
                }
            )
        elif what == "tree":
            self.tree(files, below)
        elif what == "paths-info":
            asked_for = parse_qs(self.sent_body.decode())["paths"]
            known = {entry["path"]: entry for entry in self.entries(files)}
            self.answer_json([known[path] for path in asked_for if path in known])
        elif what == "preupload":
            self.preupload(files)
        elif what == "tag":
            self.tag(repo, oid, json.loads(self.sent_body)["tag"])
        elif what == "commit":
            with self.hub.changed:
                self.commit(kind, name, repo, revision)
        elif what in ("xet-read-token", "xet-write-token") and self.hub.store is not None:
            self.xet_token(self.hub.store)
        else:
            self.refuse(404, f"NotRouted: {what}")

    def refs(self, repo: Repo) -> None:
        found: dict[str, list[dict[str, str]]] = {"branches": [], "tags": [], "converts": []}
        with_pulls = "include_prs" in urlsplit(self.path).query
        if with_pulls:
            found["pullRequests"] = []
        for name, oid in repo.names.items():
            pull = name.startswith("refs/pr/")
            kind = "pullRequests" if pull else "tags" if name in repo.tags else "branches"
            place = name if pull else f"refs/{'tags' if name in repo.tags else 'heads'}/{name}"
            if kind in found:
                found[kind].append({"name": name, "ref": place, "targetCommit": oid})
        self.answer_json(found)

    def tag(self, repo: Repo, oid: str, name: str) -> None:
        with self.hub.changed:
            if name in repo.names:
                self.refuse(409, "TagExists")
                return
            repo.names[name] = oid
            repo.tags.add(name)
        self.answer_json({})

    # Reading

    def entries(self, files: dict[str, bytes]) -> list[dict[str, Any]]:
        """All files and folders, as the Hub lists them."""
        folders = {str(place) for path in files for place in Path(path).parents} - {"."}
        found: list[dict[str, Any]] = [
            {"type": "directory", "path": path, "size": 0, "oid": git_oid(path.encode())}
            for path in sorted(folders)
        ]
        for path, content in sorted(files.items()):
            size, oid = len(content), git_oid(content)
            entry: dict[str, Any] = {"type": "file", "path": path, "size": size, "oid": oid}
            if self.hub.is_large(path, size):
                sha256 = hashlib.sha256(content).hexdigest()
                pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\n"
                pointer += f"size {size}\n"
                entry["oid"] = git_oid(pointer.encode())
                entry["lfs"] = {"oid": sha256, "size": size, "pointerSize": len(pointer)}
                if sha256 in self.hub.xet:
                    entry["xetHash"] = self.hub.xet[sha256]
            found.append(entry)
        return found

    def siblings(self, files: dict[str, bytes]) -> list[dict[str, Any]]:
        """All files by their names, with `blobs=true` as `entries` knows them too."""
        if "blobs=true" not in urlsplit(self.path).query.lower():
            return [{"rfilename": path} for path in sorted(files)]
        found = []
        for entry in (entry for entry in self.entries(files) if entry["type"] == "file"):
            file = {"rfilename": entry["path"], "size": entry["size"], "blobId": entry["oid"]}
            if lfs := entry.get("lfs"):
                file["lfs"] = {**lfs, "sha256": lfs["oid"]}
                del file["lfs"]["oid"]
            found.append(file)
        return found

    def tree(self, files: dict[str, bytes], below: str) -> None:
        place = f"{below}/" if below else ""
        found = [entry for entry in self.entries(files) if entry["path"].startswith(place)]
        if place and not found:
            self.refuse(404, "EntryNotFound")
            return
        if "recursive=true" not in urlsplit(self.path).query.lower():
            found = [entry for entry in found if "/" not in entry["path"].removeprefix(place)]
        self.answer_json(found)

    def file(self, repo: Repo, revision: str, name: str) -> None:
        oid = repo.names.get(revision, revision)
        if oid not in repo.commits:
            self.refuse(404, "RevisionNotFound")
            return
        if name not in repo.commits[oid]:
            self.answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": oid})
            return
        content = repo.commits[oid][name]
        headers = {"X-Repo-Commit": oid}
        if not self.hub.is_large(name, len(content)):
            self.send_content(content, headers | {"ETag": f'"{git_oid(content)}"'})
            return
        sha256 = hashlib.sha256(content).hexdigest()
        self.hub.objects[sha256] = content
        headers["X-Linked-ETag"] = f'"{sha256}"'
        headers["X-Linked-Size"] = str(len(content))
        headers["Location"] = self.hub.elsewhere(sha256)
        if sha256 in self.hub.xet:
            place = self.path.partition("/resolve/")[0]
            kind = "" if place.startswith("/datasets/") else "/models"
            route = f"{self.hub.url}/api{kind}{place}/xet-read-token/{oid}"
            headers["X-Xet-Hash"] = self.hub.xet[sha256]
            headers["Link"] = f'<{route}>; rel="xet-auth"'
        self.answer(302, b"", headers)

    # Large files

    def object(self, sha256: str) -> None:
        """Where large files are; it refuses a token, as stores with signed addresses do."""
        if self.exchange.authorized or SIGNATURE not in self.path:
            self.refuse(400, "NotOneAuthorization")
        elif self.command == "PUT":
            if hashlib.sha256(self.sent_body).hexdigest() != sha256:
                self.refuse(400, "OtherBytes")
                return
            self.hub.objects[sha256] = self.sent_body
            self.answer(200)
        elif sha256 in self.hub.objects:
            self.send_content(self.hub.objects[sha256], {"ETag": f'"{sha256}"'})
        else:
            self.refuse(404, "NoObject")

    def large_files(self, path: str, what: str) -> None:
        asked = json.loads(self.sent_body)
        if what == "objects/verify":
            known = len(self.hub.objects.get(asked["oid"], b"")) == asked["size"]
            self.answer(200) if known else self.refuse(404, "NoObject")
            return
        found = []
        for one in asked["objects"]:
            entry = {"oid": one["oid"], "size": one["size"]}
            if one["oid"] not in self.hub.objects:
                verify = f"{self.hub.url}{path.removesuffix('batch')}verify"
                entry["actions"] = {
                    "upload": {"href": self.hub.elsewhere(one["oid"])},
                    "verify": {"href": verify},
                }
            found.append(entry)
        self.answer_json({"transfer": "basic", "objects": found})

    def xet_token(self, store: LocalStore) -> None:
        until, token = int(time.time()) + 3600, "xet_of_the_tests"
        document = json.dumps({"casUrl": store.url, "exp": until, "accessToken": token})
        self.answer(
            200,
            document.encode(),
            {
                "Content-Type": "application/json",
                "X-Xet-Cas-Url": store.url,
                "X-Xet-Access-Token": token,
                "X-Xet-Token-Expiration": str(until),
            },
        )

    # Writing

    def preupload(self, present: dict[str, bytes]) -> None:
        found = []
        for asked in json.loads(self.sent_body)["files"]:
            path, large = asked["path"], self.hub.is_large(asked["path"], asked["size"])
            entry = {
                "path": path,
                "uploadMode": "lfs" if large else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            if path in present:
                content = present[path]
                kept_large = self.hub.is_large(path, len(content))
                entry["oid"] = (
                    hashlib.sha256(content).hexdigest() if kept_large else git_oid(content)
                )
            found.append(entry)
        self.answer_json({"files": found})

    def commit(self, kind: str, name: str, repo: Repo, revision: str) -> None:
        head = repo.names.get(revision, revision)
        files = dict(repo.commits[head])
        for line in self.sent_body.splitlines():
            entry = json.loads(line)
            key, value = entry["key"], entry["value"]
            if key == "header":
                if value.get("parentCommit", head) != head:
                    self.answer(412, b'{"error": "A commit has happened since."}')
                    return
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                content = self.uploaded(value["oid"])
                if content is None:
                    self.refuse(400, f"NoObject: {value['oid']}")
                    return
                files[value["path"]] = content
            elif key in ("deletedFile", "deletedFolder"):
                place, folder = value["path"].rstrip("/"), key == "deletedFolder"
                gone = [p for p in files if (p.startswith(f"{place}/") if folder else p == place)]
                if not gone:
                    self.refuse(404, "EntryNotFound")
                    return
                for path in gone:
                    del files[path]
            else:
                self.refuse(400, f"UnknownKey: {key}")
                return
        pull_request = "create_pr=1" in urlsplit(self.path).query
        if revision not in repo.names and not pull_request:
            self.refuse(400, "NoBranch")
            return
        number = 1 + sum(branch.startswith("refs/pr/") for branch in repo.names)
        oid = repo.commit(files, name=f"refs/pr/{number}" if pull_request else revision)
        url = f"{self.hub.url}/{'datasets/' if kind == 'datasets' else ''}{name}"
        document = {"commitOid": oid, "commitUrl": f"{url}/commit/{oid}"}
        if pull_request:
            document["pullRequestUrl"] = f"{url}/discussions/{number}"
        self.answer_json({"success": True, "hookOutput": "", **document})

    def uploaded(self, sha256: str) -> bytes | None:
        """A large file that was sent before the commit that names it."""
        store = self.hub.store
        if sha256 in self.hub.objects or store is None:
            return self.hub.objects.get(sha256)
        try:
            found = store.files()
            if sha256 not in found:
                return None
            content = store.read(*found[sha256])
        except LayoutError as error:
            self.hub.xet_trouble = str(error)
            return None
        self.hub.xet[sha256] = found[sha256][0]
        self.hub.objects[sha256] = content
        return content


def git_oid(content: bytes) -> str:
    """Git's name of a blob, which the Hub's client knows files by."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, which tests kill, is no error here."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def ask_from_here(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this very process ask the Hub on loopback, with a cache of its own."""
    known = "huggingface_hub.constants"
    files = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(f"{known}.ENDPOINT", hub.url)
    monkeypatch.setattr(f"{known}.HUGGINGFACE_CO_URL_TEMPLATE", files)
    monkeypatch.setattr(f"{known}.HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Answer on a free port of 127.0.0.1 until the block ends."""
    handler = type("Bound", (Handler,), {"hub": hub})
    server = Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        if hub.large == "xet":
            hub.store = LocalStore(Path(folder))
        try:
            yield hub
        finally:
            hub.closing.set()
            server.shutdown()
            server.server_close()

"""A Hugging Face Hub on loopback, for reading: enough for the real client, unpatched.

    with serving(Hub()) as hub: …        hub.url is what HF_ENDPOINT must be

Model repositories with commits, branches, tags and pull requests; private ones; faults on demand.
Every upload is taken as a regular file. What it has not: LFS, Xet, datasets, gated repositories,
rate limits as the Hub counts them. Nothing that passes here is thereby tested against the live Hub.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

TOKEN = "hf_of_the_tests"


@dataclass
class Repo:
    """Commits by their hash, and what names them."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

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
    """What happens `times` times to requests whose 'METHOD path' matches.

    `after`: a commit is made, and then answered with an error.
    """

    matching: str
    times: int
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    wrong_bytes: bool = False
    after: bool = False


@dataclass
class Hub:
    """Repositories by name, the requests that were made, and the faults that are to come."""

    repos: dict[str, Repo] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    url: str = ""

    def fault_for(self, line: str) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.matching, line):
                fault.times -= 1
                return fault
        return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""

    def answer(
        self, status: int, content: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        headers = {"Content-Length": str(len(content)), **(headers or {})}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def answer_json(self, document: object) -> None:
        self.answer(200, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def refuse(self, status: int, code: str) -> None:
        content = json.dumps({"error": code}).encode()
        self.answer(status, content, {"X-Error-Code": code, "X-Error-Message": code})

    def do_GET(self) -> None:
        line = f"{self.command} {self.path}"
        allowed = self.headers.get("authorization") == f"Bearer {TOKEN}"
        self.hub.requests.append(line)
        fault = self.hub.fault_for(line)
        if fault is not None and fault.status:
            self.answer(fault.status, b'{"error": "as asked for"}', fault.headers)
            return
        self.route(unquote(urlsplit(self.path).path), allowed, fault)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        line, body = f"{self.command} {self.path}", self.body()
        self.hub.requests.append(line)
        fault = self.hub.fault_for(line)
        if fault is not None and not fault.after:
            self.answer(fault.status, b'{"error": "as asked for"}', fault.headers)
            return
        if self.headers.get("authorization") != f"Bearer {TOKEN}":
            self.refuse(401, "Unauthorized")
            return
        self.lost = fault is not None  # done, but the answer is an error
        self.route_post(urlsplit(self.path), body)

    lost = False

    def body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def route_post(self, url: SplitResult, body: bytes) -> None:
        path = unquote(url.path)
        if path == "/api/validate-yaml":
            self.answer_json({"errors": [], "warnings": []})
            return
        if path == "/api/repos/create":
            self.create_repo(json.loads(body))
            return
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit|tag)/(.+)", path)
        repo = self.hub.repos.get(api[1]) if api else None
        if api is None or repo is None:
            self.refuse(404, "RepoNotFound")
            return
        head = repo.names.get(api[3], api[3])
        if api[2] == "preupload":
            present = repo.commits[head]
            self.answer_json(
                {
                    "files": [
                        {
                            "path": file["path"],
                            "uploadMode": "regular",
                            "shouldIgnore": False,
                            "oid": git_oid(present[file["path"]])
                            if file["path"] in present
                            else None,
                        }
                        for file in json.loads(body)["files"]
                    ]
                }
            )
        elif api[2] == "tag":
            tag = json.loads(body)["tag"]
            if tag in repo.names:
                self.refuse(409, "TagExists")
                return
            repo.names[tag] = head
            self.answer_json({})
        else:
            self.commit(api[1], repo, head, body, pull_request="create_pr=1" in url.query)

    def create_repo(self, asked: dict[str, Any]) -> None:
        name = "/".join(part for part in (asked.get("organization"), asked["name"]) if part)
        url = f"{self.hub.url}/{name}"
        if name in self.hub.repos:
            self.answer(409, json.dumps({"error": "exists", "url": url}).encode())
            return
        private = asked.get("private", False) or asked.get("visibility") == "private"
        self.hub.repos[name] = Repo(private=bool(private))
        self.hub.repos[name].commit({".gitattributes": b""})
        self.answer_json({"url": url, "name": name, "id": "1"})

    def commit(self, name: str, repo: Repo, head: str, body: bytes, *, pull_request: bool) -> None:
        files = dict(repo.commits[head])
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header" and value.get("parentCommit", head) != head:
                self.answer(412, b'{"error": "A commit has happened since."}')
                return
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
        number = 1 + sum(branch.startswith("refs/pr/") for branch in repo.names)
        branch = f"refs/pr/{number}" if pull_request else "main"
        oid = repo.commit(files, name=branch)
        if self.lost:
            self.answer(503, b'{"error": "as asked for"}')
            return
        document = {"commitOid": oid, "commitUrl": f"{self.hub.url}/{name}/commit/{oid}"}
        if pull_request:
            document["pullRequestUrl"] = f"{self.hub.url}/{name}/discussions/{number}"
        self.answer_json({"success": True, "hookOutput": "", **document})

    def route(self, path: str, allowed: bool, fault: Fault | None) -> None:
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        found = api or file
        if found is None:
            self.refuse(404, "NotRouted")
            return
        repo = self.hub.repos.get(found[1])
        if repo is None or (repo.private and not allowed):
            self.refuse(404 if allowed else 401, "RepoNotFound")
            return
        asked = (api[3] if api else found[2]) or "main"
        oid = repo.names.get(asked, asked)
        if oid not in repo.commits:
            self.refuse(404, "RevisionNotFound")
            return
        files = repo.commits[oid]
        if file:
            self.send_file(files, file[3], oid, fault)
        elif api and api[2] == "tree":
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": git_oid(content)}
                for name, content in sorted(files.items())
            ]
            self.answer_json(entries)
        else:
            siblings = [{"rfilename": name} for name in sorted(files)]
            self.answer_json(
                {
                    "id": found[1],
                    "modelId": found[1],
                    "sha": oid,
                    "private": repo.private,
                    "siblings": siblings,
                    "tags": [],
                }
            )

    def send_file(self, files: dict[str, bytes], name: str, oid: str, fault: Fault | None) -> None:
        if name not in files:
            self.answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": oid})
            return
        content = files[name]
        headers = {"X-Repo-Commit": oid, "ETag": f'"{git_oid(content)}"', "Accept-Ranges": "bytes"}
        if fault is not None and fault.wrong_bytes:
            content = bytes(255 - byte for byte in content)
        span = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if span and int(span[1]):
            start = int(span[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.answer(206, content[start:], headers)
        elif fault is not None and fault.cut_after is not None and self.command == "GET":
            self.answer(200, b"", headers | {"Content-Length": str(len(content))})
            self.wfile.write(content[: fault.cut_after])
            self.close_connection = True
        else:
            self.answer(200, content, headers)


def git_oid(content: bytes) -> str:
    """Git's name of a blob, which the Hub's client knows files by."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Answer on a free port of 127.0.0.1 until the block ends."""
    handler = type("Bound", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()

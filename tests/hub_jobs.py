"""Accounts, jobs and buckets of the Hub on loopback, as far as huggingface_hub 2.4 asks for them.

A job is kept as it was asked for, and never runs: a test sets its stage. The Hub checks flavors,
labels, credit and who may write to a bucket; here, faults stand for its refusals. A bucket's files
are in the client's own Xet store, by their names there.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

ACCOUNT = "me"


@dataclass
class Bucket:
    """Files by their path: the name and the size in the store."""

    files: dict[str, tuple[str, int]] = field(default_factory=dict)


class JobRoutes:
    """The routes of the handler in tests/hub_server.py, which has the answers."""

    hub: Any
    command: str
    path: str
    allowed: bool
    sent_body: bytes
    answer: Any
    answer_json: Any
    refuse: Any
    xet_token: Any

    def job_api(self, path: str) -> None:
        """All of this asks for a token."""
        if not self.allowed:
            self.refuse(401, "RepoNotFound" if "buckets" in path else "Unauthorized")
        elif path == "/api/whoami-v2":
            self.answer_json({"type": "user", "id": "1", "name": ACCOUNT})
        elif found := re.fullmatch(r"/api/jobs/([^/]+)", path):
            if self.command == "POST":
                self.answer_json(self.new_job(found[1], json.loads(self.sent_body)))
            else:
                self.answer_json(self.listed_jobs(found[1]))
        elif found := re.fullmatch(r"/api/buckets/([^/]+/[^/]+)(?:/([^/]+)/?(.*))?", path):
            self.bucket_api(found[1], found[2] or "", unquote(found[3] or ""))
        elif found := re.fullmatch(r"/buckets/([^/]+/[^/]+)/resolve/(.+)", path):
            self.bucket_file(found[1], unquote(found[2]))
        else:
            self.refuse(404, f"NotRouted: {self.command} {path}")

    # Jobs

    def new_job(self, account: str, asked: dict[str, Any]) -> dict[str, Any]:
        """A job that is waiting; the names of its secrets are all that is told of them."""
        number = len(self.hub.jobs) + 1
        job = {
            **{name: value for name, value in asked.items() if name != "timeoutSeconds"},
            "id": f"{number:024x}",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "owner": {"id": "1", "name": account, "type": "user"},
            "status": {"stage": "SCHEDULING", "message": None},
            "secrets": sorted(asked.get("secrets", {})),
        }
        self.hub.jobs.insert(0, job | {"asked": asked})
        return job

    def listed_jobs(self, account: str) -> list[dict[str, Any]]:
        """The jobs of an account that have all labels asked for, the newest first."""
        labels = [one.split("=", 1) for one in self.asked("label")]
        return [
            {name: value for name, value in job.items() if name != "asked"}
            for job in self.hub.jobs
            if job["owner"]["name"] == account
            and all(job.get("labels", {}).get(key) == value for key, value in labels)
        ]

    def asked(self, name: str) -> list[str]:
        return parse_qs(urlsplit(self.path).query).get(name, [])

    # Buckets

    def bucket_api(self, name: str, what: str, rest: str) -> None:
        bucket = self.hub.buckets.get(name)
        if bucket is None:
            self.refuse(404, "RepoNotFound")
        elif not what:
            self.answer_json(
                {
                    "id": name,
                    "private": True,
                    "createdAt": "2026-01-01T00:00:00.000Z",
                    "size": sum(size for _, size in bucket.files.values()),
                    "totalFiles": len(bucket.files),
                }
            )
        elif what == "tree":
            self.answer_json(
                [
                    {"type": "file", "path": path, "size": size, "xetHash": name}
                    for path, (name, size) in sorted(bucket.files.items())
                    if path.startswith(rest)
                ]
            )
        elif what == "batch":
            self.change(bucket)
        elif what in ("xet-read-token", "xet-write-token"):
            self.xet_token(self.hub.store)
        else:
            self.refuse(404, f"NotRouted: {what}")

    def change(self, bucket: Bucket) -> None:
        """Add files that were sent to the store before."""
        sizes = self.hub.store.sizes()
        for line in self.sent_body.splitlines():
            entry = json.loads(line)
            if entry["type"] != "addFile" or entry["xetHash"] not in sizes:
                self.refuse(400, f"NotAdded: {entry}")
                return
            bucket.files[entry["path"]] = (entry["xetHash"], sizes[entry["xetHash"]])
        self.answer_json({"success": True, "failed": []})

    def bucket_file(self, name: str, path: str) -> None:
        """Where a file is; the client reads it from the store."""
        bucket = self.hub.buckets.get(name)
        if bucket is None or path not in bucket.files:
            self.refuse(404, "EntryNotFound")
            return
        xet, size = bucket.files[path]
        route = f"{self.hub.url}/api/buckets/{name}/xet-read-token"
        headers = {"X-Xet-Hash": xet, "X-Linked-Size": str(size)}
        self.answer(200, b"", headers | {"Link": f'<{route}>; rel="xet-auth"'})

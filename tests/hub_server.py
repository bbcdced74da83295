"""A stand-in for the Hugging Face hub on this machine: repositories that can be read and pushed to."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_of_the_tests"


@dataclass
class Hub:
    """One repository with one commit, and what was asked of it and pushed to it.

    ``branch`` is the name under which it can be asked for besides the main branch and the commit. Whoever pushes needs
    ``TOKEN``.
    """

    files: dict[str, bytes]
    repository: str = "tester/lenet"
    branch: str = "v1"
    endpoint: str = ""
    asked: list[str] = field(default_factory=list)
    created: list[dict[str, Any]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        self.asked.append(path)
        owner, name, _, revision, file = [*path.strip("/").split("/", 4), "", "", "", ""][:5]
        if f"{owner}/{name}" != self.repository:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        if revision not in ("main", COMMIT, self.branch):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        if file not in self.files:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b""
        content = self.files[file]
        return 200, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}, content

    def receive(self, path: str, body: bytes, token: str | None) -> tuple[int, dict[str, Any]]:
        """What is sent for a push: the large files one by one, and then all of it as one commit."""
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path.startswith("/large/"):
            self.stored[path.removeprefix("/large/")] = body
            return 200, {}
        if token != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid username or password."}
        if path == "/api/repos/create":
            self.created.append(json.loads(body))
            return 200, {"url": f"{self.endpoint}/{self.repository}"}
        if path == f"/{self.repository}.git/info/lfs/objects/batch":
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.endpoint}/large/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return 200, {"transfer": "basic", "objects": objects}
        if path.startswith(f"/api/models/{self.repository}/preupload/"):
            names = [one["path"] for one in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith((".onnx", ".npz", ".png", ".whl")) else "regular" for name in names}
            files = [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]
            return 200, {"files": files}
        if path.startswith(f"/api/models/{self.repository}/commit/"):
            self._commit([json.loads(line) for line in body.splitlines()])
            page = f"{self.endpoint}/{self.repository}/commit/{COMMIT}"
            return 200, {"success": True, "commitOid": COMMIT, "commitUrl": page}
        return 404, {}

    def _commit(self, entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            value = entry["value"]
            if entry["key"] == "header":
                self.messages.append(value["summary"])
            elif entry["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                self.files[value["path"]] = self.stored[value["oid"]]


@contextlib.contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """The hub at an address of this machine, for the time of a ``with``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, content = hub.answer(self.path)
            self._send(status, headers, content)

        do_HEAD = do_GET  # noqa: N815  http.server's name

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, document = hub.receive(self.path, body, self.headers.get("Authorization"))
            self._send(status, {"Content-Type": "application/json"}, json.dumps(document).encode())

        do_PUT = do_POST  # noqa: N815

        def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for key, value in (headers | {"Content-Length": str(len(content))}).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def environment(hub: Hub, home: Path, **variables: str) -> dict[str, str]:
    """For a process of its own: huggingface_hub reads the environment when it is imported."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    return {
        **kept,
        "HF_HOME": str(home / "hub"),
        "EDGEPORT_CACHE": str(home / "edgeport"),
        "HF_ENDPOINT": hub.endpoint,
        **variables,
    }

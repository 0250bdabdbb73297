"""A server that behaves like the Hugging Face hub, of folders on the disk; and tests' environment around it.

It answers as https://huggingface.co does, as of huggingface_hub 0.36 and 2.4: the description of a repository with
its files, their contents by ranges, and the codes of errors.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Optional
from urllib.parse import unquote

import pytest

LARGE = 2000  # bytes; larger files are offered over Xet, too
COMMIT = "c0ffee" + "0" * 34


@dataclass
class Hub:
    """The server's state: `folders` by the names of repositories, and how it misbehaves.

    Attributes:
        asked: method and path of each request, in order.
        sent: the names of the files whose contents were sent, in order.
        commit: the commit that the branch main is at.
        token: what a request must bear; None: nothing.
        gated: whether a token alone is not enough.
        status: answer everything with it; `headers` go with it. -1: close each connection without an answer.
        truncate: bodies of large files end after so many bytes, as often as `truncated` says.
    """

    folders: dict[str, Path] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    commit: str = COMMIT
    token: Optional[str] = None
    gated: bool = False
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    truncate: int = 0
    truncated: int = 0
    address: str = ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub, path = self.hub, unquote(self.path.partition("?")[0])
        hub.asked.append(f"{self.command} {path}")
        if hub.status < 0:
            self.close_connection = True
            return None
        if hub.status:
            return self._send(hub.status, b"{}", hub.headers)
        token = self.headers.get("Authorization", "").replace("Bearer ", "")
        if hub.token is not None and token != hub.token:
            return self._error(401, "GatedRepo" if hub.gated else "RepoNotFound")
        if path.startswith("/api/models/"):
            return self._describe(path[len("/api/models/") :])
        repository, _, rest = path[1:].partition("/resolve/")
        revision, _, file = rest.partition("/")
        if repository not in hub.folders:
            return self._error(401, "RepoNotFound")  # as of a private one
        if revision not in ("main", "v1", hub.commit):
            return self._error(404, "RevisionNotFound")
        return self._send_file(repository, file)

    def _describe(self, rest: str) -> None:
        kind = "tree" if "/tree/" in rest else "revision"  # huggingface_hub 2 lists files by the former
        repository, _, revision = rest.partition(f"/{kind}/")
        if repository not in self.hub.folders:
            return self._error(401, "RepoNotFound")
        if revision not in ("", "main", "v1", self.hub.commit):
            return self._error(404, "RevisionNotFound")
        folder = self.hub.folders[repository]
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        body: object
        if kind == "tree":
            oid = {path: hashlib.sha1(path.read_bytes()).hexdigest() for path in files}
            body = [{"type": "file", "oid": oid[p], "size": p.stat().st_size, "path": p.relative_to(folder).as_posix()}
                    for p in files]  # fmt: skip
        else:
            siblings = [{"rfilename": p.relative_to(folder).as_posix(), "size": p.stat().st_size} for p in files]
            body = {"id": repository, "modelId": repository, "sha": self.hub.commit, "siblings": siblings}
        self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})
        return None

    def _send_file(self, repository: str, file: str) -> None:
        path = self.hub.folders[repository] / file
        if not path.is_file():
            return self._error(404, "EntryNotFound")
        body = path.read_bytes()
        etag = hashlib.sha256(body).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": self.hub.commit, "Accept-Ranges": "bytes"}
        if len(body) > LARGE:
            headers.update({"X-Xet-Hash": etag, "X-Xet-Refresh-Route": f"{self.hub.address}/api/xet"})
        if self.command == "GET":
            self.hub.sent.append(file)
        wanted = self.headers.get("Range", "")
        if not wanted:
            return self._send(200, body, headers)
        first = int(wanted.removeprefix("bytes=").partition("-")[0])
        headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
        return self._send(206, body[first:], headers)

    def _error(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if len(body) > LARGE and self.hub.truncated:
            self.hub.truncated -= 1
            self.wfile.write(body[: self.hub.truncate])
            self.close_connection = True
            return
        self.wfile.write(body)


@contextmanager
def hub_environment(folder: Path, endpoint: str, patch: pytest.MonkeyPatch, **variables: str) -> Iterator[None]:
    """Let the library see a hub at `endpoint`, an empty cache in `folder`, and `variables`; it reads them once."""
    from huggingface_hub import constants, file_download

    given = {"HF_HOME": str(folder / "hf"), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_PROGRESS_BARS": "1", **variables}
    with patch.context() as context:
        for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN",
                     "HF_HUB_DISABLE_XET"):  # fmt: skip
            context.delenv(name, raising=False)
        for name, value in given.items():
            context.setenv(name, value)
        importlib.reload(constants)
        if hasattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE"):  # before huggingface_hub 1, a copy
            context.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", constants.HUGGINGFACE_CO_URL_TEMPLATE)
        try:
            yield
        finally:
            context.undo()
            importlib.reload(constants)


@contextmanager
def hub_server() -> Iterator[Hub]:
    """Run a hub until the block ends."""
    hub = Hub()
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub})) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        hub.address = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield hub
        finally:
            server.shutdown()

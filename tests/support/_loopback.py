"""A web server on the loopback device, whose answers a test writes itself."""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import patch

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
Request = BaseHTTPRequestHandler


@contextmanager
def serve(answer: Callable[[Request], None]) -> Iterator[str]:
    """Run a server that answers each request with `answer(request)`; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self)

        def do_HEAD(self):
            answer(self)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        with patch.dict(os.environ, NO_PROXY="127.0.0.1", no_proxy="127.0.0.1"):
            yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def reply(request: Request, body: bytes = b"", status: int = 200, cut: int | None = None, **headers: str) -> None:
    """Send one answer; with `cut`, close the connection after that many bytes of the body.

    Keywords are header names with `_` for `-`.
    """
    request.send_response(status)
    headers = {"Content_Length": str(len(body))} | headers
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body[:cut])
    if cut is not None:
        request.close_connection = True


class Hub:
    """What huggingface_hub asks of a hub: the list of the files of owner/model, and each file.

    `plan` lists what the next requests for a file ("" for the list) are answered with before it is given as it is: a
    status, `cut` bytes of it, or another `body`. Weights have the SHA-256 of large files, others git's SHA-1.
    """

    def __init__(
        self,
        files: Mapping[str, bytes],
        error: tuple[int, str] | None = None,
        only_files: bool = False,
        plan: Mapping[str, list[dict]] | None = None,
    ):
        self.files, self.error, self.only_files, self.plan = files, error, only_files, plan or {}
        self.seen = []

    def __call__(self, request):
        path = request.path.split("?")[0]
        self.seen.append((request.command, path))
        listing = path.startswith("/api/")
        name = "" if listing else path.removeprefix(f"/owner/model/resolve/{COMMIT}/")
        planned = self.plan.get(name) if request.command == "GET" else None
        step = planned.pop(0) if planned else {}
        if "status" in step:
            reply(request, b"{}", step["status"], Content_Type="application/json")
        elif self.error and not (self.only_files and listing):
            status, code = self.error
            reply(request, b"{}", status, X_Error_Code=code, Content_Type="application/json")
        elif listing:
            siblings = [{"rfilename": name} for name in self.files]
            body = json.dumps({"id": "owner/model", "sha": COMMIT, "siblings": siblings}).encode()
            reply(request, body, Content_Type="application/json")
        else:
            body = self.files[name]
            git = hashlib.sha1(b"blob %d\0" % len(body) + body)
            etag = (hashlib.sha256(body) if name.endswith(".safetensors") else git).hexdigest()
            headers = {"ETag": f'"{etag}"', "X_Repo_Commit": COMMIT, "Accept_Ranges": "bytes"}
            sent, status = step.get("body", body), 200
            if wanted := request.headers.get("Range"):
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                headers["Content_Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
                self.seen.append(("Range", wanted))
                sent, status = sent[start:], 206
            reply(request, sent, status, step.get("cut"), **headers)


@contextmanager
def use(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let huggingface_hub take this hub, which it can reach within the context alone, and this cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serve(hub) as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield

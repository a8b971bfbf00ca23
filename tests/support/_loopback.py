"""A web server on the loopback device, whose answers a test writes itself."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest.mock import patch

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

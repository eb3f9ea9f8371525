"""A small HTTP server that stands in for a publisher, with the faults that real ones have."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Publisher:
    """What the server hands out, and what it was asked.

    Attributes:
        files: path -> content.
        etag: version of every file; no ETag if None.
        ranges: "yes", "ignored", or "careless": ranges without a look at If-Range.
        cuts: bytes after which the next answers break off, one an answer.
        statuses: status codes of the next answers, one an answer.
        length: whether answers say their length.
        asked: (path, Range, If-Range) of every request.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.etag: str | None = '"1"'
        self.ranges = "yes"
        self.cuts: list[int] = []
        self.statuses: list[int] = []
        self.length = True
        self.asked: list[tuple[str, str | None, str | None]] = []
        self.address = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted, condition = request.headers["Range"], request.headers["If-Range"]
        self.asked.append((request.path, wanted, condition))
        if self.statuses:
            return request.send_error(self.statuses.pop(0))
        if request.path not in self.files:
            return request.send_error(404)
        content = self.files[request.path]
        first = 0
        if wanted and self.ranges != "ignored" and (self.ranges == "careless" or condition in (self.etag, None)):
            first = int(wanted[len("bytes=") : -1])
            if first >= len(content):
                return request.send_error(416)
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        else:
            request.send_response(200)
        if self.etag:
            request.send_header("ETag", self.etag)
        if self.length:
            request.send_header("Content-Length", str(len(content) - first))
        request.end_headers()
        sent = content[first:]
        request.wfile.write(sent[: self.cuts.pop(0)] if self.cuts else sent)


@contextmanager
def publishing() -> Iterator[Publisher]:
    """Serve on a free port of this machine."""
    publisher = Publisher()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            publisher.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        publisher.address = f"http://127.0.0.1:{server.server_port}"
        # A short poll: shutdown waits for one.
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield publisher
        finally:
            server.shutdown()
            thread.join()

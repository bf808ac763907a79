"""A server of one file on this machine, which answers each request as a test wants."""

import contextlib
import http.server
import threading
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

from mtl_jax.runtime import download


@dataclass
class Answer:
    """An answer to a request.

    Attributes:
        content: The file.
        status: Status of an answer without a file; 200 for one with the file.
        headers: Further headers, ETag for example.
        cut: Bytes of the body after which the connection breaks, None for none.
        length: Whether the answer says how long the body is.
        ranges: Whether the server sends the range that it is asked for.
        chunked: Whether the body comes in chunks.
        wait: Seconds for which the server says nothing after the first bytes.
    """

    content: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    length: bool = True
    ranges: bool = True
    chunked: bool = False
    wait: float = 0

    def send(self, request):
        body, status, headers = self.content, self.status, dict(self.headers)
        asked = request.headers.get("Range")
        # A server sends the whole file if that is another one than the client has a part of.
        same = request.headers.get("If-Range") in (headers.get("ETag"), headers.get("Last-Modified"))
        if asked and self.ranges and same and status == 200:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            body, status = body[start:], 206
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        if self.chunked:
            request.send_header("Transfer-Encoding", "chunked")
        elif self.length:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        sent = body[: self.cut]
        if self.wait:
            request.wfile.write(sent[:10])
            sent = sent[10:]
            request.server.over.wait(self.wait)
        if self.chunked:
            request.wfile.write(f"{len(body):x}\r\n".encode() + sent)
            if self.cut is None:
                request.wfile.write(b"\r\n0\r\n\r\n")
        else:
            request.wfile.write(sent)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        number = len(self.server.requests)
        self.server.requests.append(dict(self.headers))
        answers = self.server.answers
        with contextlib.suppress(ConnectionError):  # of a client that was killed or has seen enough
            answers[min(number, len(answers) - 1)].send(self)
        self.close_connection = True

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def serving(monkeypatch):
    """Yields `url`, `answers` (one for each request, the last one for all further ones) and `requests` (headers).

    Downloads from http are permitted meanwhile, and attempts follow each other without a pause.
    """
    monkeypatch.setattr(download, "_SCHEMES", ("https", "http"))
    monkeypatch.setattr(download, "_PAUSE", 0)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.answers, running.requests, running.over = [], [], threading.Event()
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{running.server_port}/file.bin"
        yield SimpleNamespace(url=url, answers=running.answers, requests=running.requests)
        running.over.set()
        running.shutdown()
        thread.join()


def wait_until(condition):
    """Waits until something is true, at most a minute."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)

"""
A backend over HTTP that decides, answers and remembers, as a test wants it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Handler = Callable[[Any, Mapping[str, str]], tuple[int, Any]]


@dataclass
class Asked:
    """A request that came."""

    path: str
    body: Any
    headers: Mapping[str, str]


@dataclass
class Backend:
    """
    Attributes:
        port: On 127.0.0.1.
        answers: By path: the function of body and headers that gives status and answer.
        asked: What came, in order.
    """

    port: int = 0
    answers: dict[str, Handler] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def of(self, path: str) -> list[Asked]:
        """What came to *path*."""
        return [asked for asked in self.asked if asked.path == path]


@contextmanager
def serving() -> Iterator[Backend]:
    """
    Run a backend in threads of its own.
    """
    backend = Backend()

    class Handle(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", "0"))
            text = self.rfile.read(length)
            body = json.loads(text) if text else None
            headers = {name.lower(): value for name, value in self.headers.items()}
            backend.asked.append(Asked(self.path, body, headers))
            status, answer = backend.answers[self.path](body, headers)
            data = b"" if answer is None else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handle)
    server.daemon_threads = True
    backend.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield backend
    finally:
        server.shutdown()
        server.server_close()

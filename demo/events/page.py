"""
The figures as a page: made here, and made anew every two seconds while somebody looks.

The page works without its script, which only asks for its middle again.
"""

from __future__ import annotations

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from demo.events.drawing import drawn, whole
from demo.events.figures import figures
from demo.events.store import SessionTable

__all__ = ["PageServer"]

FOLDER = Path(__file__).resolve().parent
FILES = {"/page.css": "text/css; charset=utf-8", "/page.js": "text/javascript; charset=utf-8"}
HTML = "text/html; charset=utf-8"
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; frame-ancestors 'none'"
)


class PageServer(ThreadingHTTPServer):
    """
    ``/`` for people, ``/figures.json`` for programs, ``/health``.

    Raises:
        OSError: the port cannot be listened on.
    """

    daemon_threads = True
    # Without it a second process on the port would share its visitors.
    allow_reuse_port = False

    def __init__(self, host: str, port: int, table: SessionTable) -> None:
        self.table = table
        super().__init__((host, port), _Asked)


class _Asked(BaseHTTPRequestHandler):
    server: PageServer
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        """Answer."""
        path = self.path.partition("?")[0]
        if path in FILES:
            self._send(FILES[path], (FOLDER / path[1:]).read_bytes())
        elif path == "/health":
            self._send("text/plain", b"ok\n")
        elif path in ("/", "/middle", "/figures.json"):
            found = figures(self.server.table, time.time())
            if path == "/figures.json":
                self._send("application/json", json.dumps(found).encode())
            else:
                self._send(HTML, (whole(drawn(found)) if path == "/" else drawn(found)).encode())
        else:
            self._send("text/plain", b"there is no such page\n", 404)

    def _send(self, kind: str, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Whoever looks on is not told of."""

"""
Pages of two origins in a real browser, before a gateway that lets in one of them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.page.browser import Window, chromium
from tests.system.backend import Backend
from tests.system.processes import running, token

FETCH = """
(async () => {{
  try {{
    const answer = await fetch("{url}", {{method: "PUT", headers: {headers}, body: "{{}}"}});
    const body = await answer.json();
    return [answer.status, body.code || "", !!answer.headers.get("X-Request-Id")].join(" ");
  }} catch (error) {{ return error.message; }}
}})()
"""
SOCKET = """
new Promise(done => {{
  const socket = new WebSocket("{url}");
  socket.onopen = () => done("open");
  socket.onerror = () => done("refused");
}})
"""


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Show a page."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>a page</title>")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def page() -> Iterator[str]:
    """Serve a page on an origin of its own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def arrive(window: Window, origin: str) -> None:
    """Go to the page, and be there: a window that is empty is complete, too."""
    window.open(origin)
    window.until(f"location.origin === '{origin}' && document.title === 'a page'")


def test_pages_of_two_origins(twistd: str, gateway: str, backend: Backend, tmp_path: Path) -> None:
    """
    A page of the list asks with a token, reads answers and errors, and connects; one of another origin does none of it.
    """
    with page() as listed, page() as other:
        body = backend.upstream + f'[cors]\norigins = ["{listed}"]\n[[websocket]]\npath = "/ws"\nanonymous = true\n'
        with running(twistd, tmp_path, body) as served, chromium() as browser:
            bearer = token(gateway, tmp_path)
            url = f"http://127.0.0.1:{served.port}/api/hello"
            known = FETCH.format(url=url, headers=f'{{"Authorization": "Bearer {bearer}"}}')
            nobody = FETCH.format(url=url, headers='{"Content-Type": "application/json"}')
            socket = SOCKET.format(url=f"ws://127.0.0.1:{served.port}/ws")
            window = browser.window()
            arrive(window, listed)
            assert window.run(known) == "200  true"
            assert window.run(nobody) == "401 credential_missing true"
            assert window.run(socket) == "open"
            asked = len(backend.heads)
            arrive(window, other)
            assert window.run(known) == "Failed to fetch"
            assert window.run(nobody) == "Failed to fetch"
            assert window.run(socket) == "refused"
            # The preflight was answered at the edge.
            assert len(backend.heads) == asked == 1

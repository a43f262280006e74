"""
The page's files, from ``demo/page``: plain HTML, CSS and modules, sent as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import Request

__all__ = ["add_page"]

FOLDER = Path(__file__).resolve().parent.parent / "page"
KINDS = {".html": b"text/html; charset=utf-8", ".css": b"text/css; charset=utf-8", ".js": b"text/javascript"}
POLICY = b"default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; frame-ancestors 'none'"


class PageFile(Resource):
    """
    One file.
    """

    isLeaf = True

    def __init__(self, path: Path) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Resource has no types
        self._path = path

    def render_GET(self, request: Request) -> bytes:
        """Send it; a change on disk is seen at once."""
        headers: Any = request.responseHeaders
        headers.setRawHeaders(b"content-type", [KINDS[self._path.suffix]])
        headers.setRawHeaders(b"cache-control", [b"no-cache"])
        headers.setRawHeaders(b"content-security-policy", [POLICY])
        headers.setRawHeaders(b"x-content-type-options", [b"nosniff"])
        return self._path.read_bytes()


def add_page(root: Resource) -> None:
    """
    Put ``/`` and ``/page/...`` under *root*.
    """
    root.putChild(b"", PageFile(FOLDER / "index.html"))
    files = Resource()
    for path in FOLDER.iterdir():
        if path.suffix in KINDS:
            files.putChild(path.name.encode("ascii"), PageFile(path))
    root.putChild(b"page", files)

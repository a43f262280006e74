"""
The page for operators on the admin port: how instances, clients, backends and events are, live.

The page itself is a published program and tells nothing: what it shows comes over ``/live/samples``, asked for with a key that the
reader types in and that is kept nowhere but in the page. Charts are drawn by uPlot (MIT, ``live/uplot.LICENSE``).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Final

from gateway.node.api_keys import Key
from gateway.node.orders import ORDERS
from gateway.web.admin_pages import Answer, Operations, Page
from gateway.web.live_samples import Samples

__all__ = ["live_pages"]

POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing inline: uPlot places its parts through the elements' own ``style``, which a policy lets pass."""

_FILES: Final = {
    b"/live": ("page.html", b"text/html; charset=utf-8"),
    b"/live/page.js": ("page.js", b"text/javascript; charset=utf-8"),
    b"/live/page.css": ("page.css", b"text/css; charset=utf-8"),
    b"/live/uplot.js": ("uplot.js", b"text/javascript; charset=utf-8"),
    b"/live/uplot.css": ("uplot.css", b"text/css; charset=utf-8"),
}


def live_pages(operations: Operations, more: Mapping[bytes, Page]) -> tuple[Samples, dict[bytes, Page]]:
    """
    Make the page's paths, and the samples behind them.

    Args:
        more: Other pages of the port, among them the server API's ``info``.
    """
    info = more.get(b"/api/info")
    asker = Key("live", ("read",))
    samples = Samples(operations, (lambda: info.answer(asker, b"{}")) if info is not None else None, _may)
    here = files("gateway.web") / "live"

    def page(name: str, kind: bytes) -> Page:
        return Page(b"GET", None, lambda _key, _body: Answer((here / name).read_bytes(), 200, kind, POLICY))

    table = {path: page(name, kind) for path, (name, kind) in _FILES.items()}
    stream = Page(b"GET", "read", lambda _key, _body: Answer(b"{}"), stream=samples.watch)
    return samples, {**table, b"/live/samples": stream}


def _may(key: Key) -> dict[str, bool]:
    return {"reload": key.allows("operate"), "disconnect": key.allows(ORDERS["disconnect"][1])}

"""
The console's verbs over the admin port: ``POST /ctl`` with ``{"verb": "who", "args": ["alice"]}``.

Any key may ask; what it may do is decided where verbs are done, and written down there.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from gateway.node.api_keys import Key
from gateway.web.admin_pages import Answer, Page

__all__ = ["Orders", "verbs_page"]

Orders = Callable[[Key, bytes, str], Deferred[bytes]]
"""Does what a body says, for a key and an address; fails with ``Problem``."""


def verbs_page(orders: Orders) -> dict[bytes, Page]:
    """
    List the one path.
    """

    def placed(key: Key, body: bytes, peer: str) -> Deferred[Answer]:
        return orders(key, body, peer).addCallback(Answer)

    return {b"/ctl": Page(b"POST", "", lambda key, body: placed(key, body, ""), placed=placed)}

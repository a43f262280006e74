"""
The server API over HTTP: ``POST /api/publish`` and the like, on the admin port.

The answer is ``{"result": …}``, or ``{"error": {"code", "message"}}`` with status 200: the operation's
own failures are for the program that asked, as in Centrifugo's API, whose libraries can be used. What
is no operation at all (a key, a path, a body too large) is a problem document as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from gateway.core.verdicts import ClientError
from gateway.node.api_keys import Key
from gateway.node.operations import Operations
from gateway.node.orders import ORDERS
from gateway.web.admin_pages import Answer, Page

__all__ = ["server_api_pages"]

_encode = msgspec.json.Encoder().encode


def server_api_pages(operations: Operations) -> dict[bytes, Page]:
    """
    List the paths, one for each operation.
    """
    return {
        f"/api/{name}".encode("ascii"): Page(b"POST", scope, _page(operations, name))
        for name, (_, scope) in ORDERS.items()
        if name != "batch"
    } | {b"/api/batch": Page(b"POST", "publish", _page(operations, "batch"))}


def _page(operations: Operations, name: str) -> Callable[[Key, bytes], Deferred[Answer]]:
    def answer(key: Key, body: bytes) -> Deferred[Answer]:
        return Deferred.fromCoroutine(_answer(operations.do(name, body, key.allows)))

    return answer


async def _answer(doing: Coroutine[Any, Any, dict[str, Any]]) -> Answer:
    try:
        return Answer(_encode({"result": await doing}))
    except ClientError as error:
        return Answer(_encode({"error": {"code": error.code, "message": error.text}}))

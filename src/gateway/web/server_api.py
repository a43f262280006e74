"""
The server API over HTTP: ``POST /api/publish`` and the like, on the admin port.

``POST /api`` takes the same as ``{"method": "publish", "params": {...}}``, which older libraries write.

The answer is ``{"result": …}``, or ``{"error": {"code", "message"}}`` with status 200: the operation's
own failures are for the program that asked, as in Centrifugo's API, whose libraries can be used. What
is no operation at all (a key, a path, a body too large) is a problem document as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from gateway.core.trace import TraceContext
from gateway.core.verdicts import ClientError, ErrorCode
from gateway.node.api_keys import Key
from gateway.node.operations import Operations
from gateway.node.orders import ORDERS
from gateway.node.results import failed
from gateway.web.admin_pages import Answer, Page

__all__ = ["server_api_pages"]

_encode = msgspec.json.Encoder().encode


class _Named(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``POST /api``."""

    method: str
    params: msgspec.Raw = msgspec.Raw(b"{}")


_decode_named = msgspec.json.Decoder(_Named).decode


def server_api_pages(operations: Operations) -> dict[bytes, Page]:
    """
    List the paths: one for each operation, and one for all.
    """
    pages = {
        f"/api/{name}".encode("ascii"): _page(scope, partial(_ordered, operations, name))
        for name, (_, scope) in ORDERS.items()
    }
    # What the operation is, and with it the scope, stands in the body: any key, and then the operation asks.
    pages[b"/api"] = _page("", partial(_named, operations))
    return pages


Order = Callable[[Key, bytes, TraceContext | None], Coroutine[Any, Any, dict[str, Any]]]


def _page(scope: str, order: Order) -> Page:
    def traced(key: Key, body: bytes, trace: TraceContext | None) -> Deferred[Answer]:
        return Deferred.fromCoroutine(_answer(order(key, body, trace)))

    return Page(b"POST", scope, lambda key, body: traced(key, body, None), traced)


async def _answer(doing: Coroutine[Any, Any, dict[str, Any]]) -> Answer:
    try:
        return Answer(_encode({"result": await doing}))
    except ClientError as error:
        return Answer(_encode(failed(error)))


async def _ordered(
    operations: Operations, name: str, key: Key, body: bytes, trace: TraceContext | None
) -> dict[str, Any]:
    return await operations.do(name, body, key, trace)


async def _named(operations: Operations, key: Key, body: bytes, trace: TraceContext | None) -> dict[str, Any]:
    try:
        named = _decode_named(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ClientError(ErrorCode.BAD_REQUEST, str(error)) from error
    return await operations.do(named.method, bytes(named.params), key, trace)

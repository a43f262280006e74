"""
Calls of clients to backends: allowed, made once, answered.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from gateway.core import commands as c
from gateway.core.verdicts import ClientError, ErrorCode
from gateway.node.facts import command_facts
from gateway.node.rulebook import Method, json_of
from gateway.ports.realtime import StoreUnavailable

if TYPE_CHECKING:
    from gateway.node.client import Client
    from gateway.node.realtime import RealtimeNode

__all__ = ["call_method"]

REMEMBERED_S = 300.0


async def call_method(node: RealtimeNode, client: Client, method: Method, request: c.Rpc, number: int) -> c.RpcDone:
    """
    Call a backend for a client. With an idempotency key of the client's own the backend is asked once.

    Raises:
        ClientError: what the client is told.
    """
    data = request.data
    command = command_facts(client, number, data)
    facts = {**client.facts(), "command": {**command, "method": request.method}}
    if method.needs_data:
        facts["data"] = json_of(data)
    method.allow(facts, anonymous=client.identity is None)
    if method.echo:
        return c.RpcDone(data)
    trace = node.trace(client)
    if not command["own_key"]:
        return c.RpcDone(await method.call(facts, data, client.identity, trace))
    key = f"rpc:{client.user}:{request.method}:{command['idempotency_key']}"
    until = node.wall() + REMEMBERED_S
    try:
        before = await node.idempotency.begin(key, until)
    except StoreUnavailable:
        raise ClientError(ErrorCode.INTERNAL, "the same command is still running", temporary=True) from None
    if before is not None:
        return c.RpcDone(before)
    # It goes on when the client leaves: whoever asks again with the same key gets this answer.
    outcome: Deferred[bytes] = Deferred()
    node.background.spawn(
        "rpc.once", _once(node, method.call(facts, data, client.identity, trace), key, until, outcome)
    )
    return c.RpcDone(await outcome)


async def _once(
    node: RealtimeNode, call: Coroutine[Any, Any, bytes], key: str, until: float, outcome: Deferred[bytes]
) -> None:
    try:
        answer = await call
    except BaseException as error:
        await node.idempotency.release(key)
        outcome.errback(error)
        return
    await node.idempotency.finish(key, answer, until)
    outcome.callback(answer)

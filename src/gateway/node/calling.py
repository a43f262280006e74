"""
Calls of clients to backends: allowed, made once, answered.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import CancelledError, Deferred

from gateway.core import commands as c
from gateway.core.verdicts import ClientError, ErrorCode
from gateway.node.facts import command_facts
from gateway.node.rulebook import Method, json_of
from gateway.ports.realtime import IdempotencyStore, StillRunning, StoreUnavailable

if TYPE_CHECKING:
    from gateway.node.client import Client
    from gateway.node.realtime import RealtimeNode

__all__ = ["call_method"]

REMEMBERED_S: Final = 300.0
"""How long an answer is given again to whoever asks with the same key."""

CLAIMED_S: Final = 120.0
"""How long a call with a key may take: after that another one may be made."""


async def call_method(
    node: RealtimeNode, client: Client, method: Method, request: c.Rpc, asked: c.Command
) -> c.RpcDone:
    """
    Call a backend for a client. With an idempotency key of the client's own the backend is asked once.

    Args:
        asked: The command that it is for.

    Raises:
        ClientError: what the client is told.
    """
    data = request.data
    command = command_facts(client, asked.id, data)
    facts = {**client.facts(), "command": {**command, "method": request.method}}
    if method.needs_data:
        facts["data"] = json_of(data)
    method.allow(facts, anonymous=client.identity is None)
    if method.echo:
        return c.RpcDone(data)
    trace = node.trace(asked)
    if not command["own_key"]:
        return c.RpcDone(await method.call(facts, data, client.identity, trace))
    key, mine = f"rpc:{client.user}:{request.method}:{command['idempotency_key']}", node.new_id()
    try:
        before = await node.idempotency.begin(key, mine, CLAIMED_S)
    except CancelledError:
        # It may be ours by now, and nobody would use it.
        node.background.spawn("rpc.release", _unless_away(node.idempotency.release(key, mine)))
        raise
    except StillRunning:
        raise ClientError(ErrorCode.INTERNAL, "the same command is still running", temporary=True) from None
    if before is not None:
        return c.RpcDone(before)
    # It goes on when the client leaves: whoever asks again with the same key gets this answer.
    outcome: Deferred[bytes] = Deferred()
    call = method.call(facts, data, client.identity, trace)
    node.background.spawn("rpc.once", _once(node.idempotency, call, key, mine, outcome))
    return c.RpcDone(await outcome)


async def _once(
    store: IdempotencyStore, call: Coroutine[Any, Any, bytes], key: str, mine: str, outcome: Deferred[bytes]
) -> None:
    try:
        answer = await call
    except BaseException as error:
        outcome.errback(error)
        await _unless_away(store.release(key, mine))
        return
    # Stored before it is told: whoever was told and asks again is told the same.
    await _unless_away(store.finish(key, mine, answer, REMEMBERED_S))
    outcome.callback(answer)


async def _unless_away(step: Coroutine[Any, Any, Any]) -> None:
    """Make *step*; if the store is away the claim stands until it lapses."""
    try:
        await step
    except StoreUnavailable:
        return

"""
The official Python SDK, unmodified, as a process that does what it is told; the same lines as ``js/client.mjs``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections.abc import Callable
from typing import Any

from centrifuge import Client, ClientEventHandler, SubscriptionEventHandler


def tell(event: dict[str, Any]) -> None:
    """Write a line."""
    print(json.dumps(event), flush=True)


def plain(value: Any) -> Any:
    """Make what the SDK gives JSON; bytes have JSON in them in these tests."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, bytes):
        return json.loads(value) if value else None
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, Exception):
        return {"code": getattr(value, "code", 0), "message": str(value)}
    return value


def handlers(base: type, more: dict[str, Any]) -> Any:
    """An event handler that tells everything."""

    def make(name: str) -> Callable[..., Any]:
        async def handle(_self: Any, context: Any) -> None:
            tell({**more, "event": name, **plain(context)})

        return handle

    names = [name for name in vars(base) if name.startswith("on_")]
    return type("Telling", (base,), {name: make(name.removeprefix("on_")) for name in names})()


class Driver:
    """
    Clients by name.
    """

    def __init__(self) -> None:
        self.clients: dict[str, Any] = {}
        self.binary: dict[str, bool] = {}
        self.subscriptions: dict[tuple[str, str], Any] = {}

    def packed(self, order: dict[str, Any]) -> Any:
        """Data as the SDK wants it."""
        data = order.get("data")
        return json.dumps(data).encode() if self.binary[order["client"]] else data

    def make(self, order: dict[str, Any]) -> None:
        """Make a client."""
        name = order["client"]
        options = dict(order.get("options") or {})
        if "tokens" in order:
            tokens = list(order["tokens"])

            async def get_token() -> str:
                tell({"client": name, "event": "getToken"})
                return str(tokens.pop(0))

            options["get_token"] = get_token
        self.binary[name] = bool(order.get("binary"))
        self.clients[name] = Client(
            order["endpoint"],
            events=handlers(ClientEventHandler, {"client": name}),
            use_protobuf=self.binary[name],
            min_reconnect_delay=0.05,
            max_reconnect_delay=0.2,
            proxy=None,
            **options,
        )

    async def subscribe(self, client: Any, order: dict[str, Any]) -> None:
        """Subscribe."""
        key = (order["client"], order["channel"])
        subscription = self.subscriptions.get(key)
        if subscription is None:
            options = dict(order.get("options") or {})
            if "joinLeave" in options:
                options["join_leave"] = options.pop("joinLeave")
            if "tokens" in order:
                tokens = list(order["tokens"])

                async def get_token(_channel: str) -> str:
                    tell({"client": key[0], "channel": key[1], "event": "getToken"})
                    return str(tokens.pop(0))

                options["get_token"] = get_token
            if "data" in options:
                options["data"] = self.packed({"client": key[0], "data": options["data"]})
            more = {"client": key[0], "channel": key[1]}
            events = handlers(SubscriptionEventHandler, more)
            subscription = client.new_subscription(order["channel"], events=events, **options)
            self.subscriptions[key] = subscription
        await subscription.subscribe()

    async def do(self, order: dict[str, Any]) -> Any:
        """Do one thing."""
        client = self.clients[order["client"]]
        what = order["do"]
        channel = order.get("channel", "")
        subscription: Any = self.subscriptions.get((order["client"], channel))
        if what == "connect":
            return await client.connect()
        if what == "disconnect":
            return await client.disconnect()
        if what == "cut":
            return client._conn.transport.abort()
        if what == "subscribe":
            return await self.subscribe(client, order)
        if what == "unsubscribe":
            return await subscription.unsubscribe()
        if what == "publish":
            return await client.publish(channel, self.packed(order))
        if what == "rpc":
            return await client.rpc(order["method"], self.packed(order))
        if what == "presence":
            return await client.presence(channel)
        if what == "presenceStats":
            found = await client.presence_stats(channel)
            return {"numClients": found.num_clients, "numUsers": found.num_users}
        if what == "history":
            return await client.history(channel, **order.get("options", {}))
        raise ValueError(f"{what} is not done by this SDK")

    async def run(self, order: dict[str, Any]) -> None:
        """Do one thing and tell its result."""
        try:
            result = plain(await self.do(order))
        except Exception as error:
            if "id" in order:
                tell({"id": order["id"], "error": {"code": getattr(error, "code", 0), "message": str(error)}})
            else:
                tell({"client": order["client"], "event": "failed", "message": repr(error)})
        else:
            if "id" in order:
                tell({"id": order["id"], "result": result or {}})


async def main() -> None:
    """
    Do what standard input says until it ends.
    """
    driver = Driver()
    loop = asyncio.get_running_loop()
    tasks = set()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        if order["do"] == "make":
            driver.make(order)
        else:
            task = asyncio.create_task(driver.run(order))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            await asyncio.sleep(0)


asyncio.run(main())

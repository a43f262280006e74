"""
Clients of streams against nodes of a house: each node has a port of its own, with a stream and a place for commands.
"""

from __future__ import annotations

import json
from typing import Any

from tests.realtime.house import House
from tests.web.harness import RawClient, Served, eventually, request, serve

from gateway.core.problems import Problem, problem_body
from gateway.dialects.centrifuge_json import CentrifugeJson
from gateway.node.realtime import RealtimeNode
from gateway.ports.clients import Opening
from gateway.ports.http import Exchange, RouteHandler
from gateway.web.emulation import Emulation
from gateway.web.streams import LineForm, StreamEdge

__all__ = ["Door", "Listener"]

FORM = LineForm(CentrifugeJson())


class Door:
    """
    The port of one node.
    """

    def __init__(self, house: House, node: RealtimeNode) -> None:
        self.node = node
        self.crashes: list[Any] = []
        self.served: Served
        section = house.config.websocket[0]
        edge = StreamEdge(
            "http_stream",
            text=FORM,
            binary=None,
            open_=lambda _: Opening("192.0.2.1", section),
            accept=node.accept,
            most_bytes=section.max_message_bytes,
            refuse=self._refuse,
            crashed=lambda _, failure: self.crashes.append(failure),
            opened=lambda _: None,
        )
        emulation = Emulation(
            node.cluster.said,
            check_origin=lambda _: None,
            most_bytes=section.max_message_bytes,
            refuse=self._refuse,
            crashed=lambda _, failure: self.crashes.append(failure),
        )
        self._routes: dict[bytes, RouteHandler] = {b"/stream": edge, b"/emulation": emulation}

    async def open(self) -> Door:
        """Listen."""
        self.served = await serve(lambda exchange: self._routes[exchange.head.target].handle(exchange))
        return self

    def _refuse(self, exchange: Exchange, problem: Problem) -> None:
        body = problem_body(problem)
        exchange.start(problem.kind.status, b"", b"", len(body), body, ended=True)

    async def close(self) -> None:
        """Listen no more."""
        await self.served.stop()
        assert not self.crashes

    async def listener(self, token: str = "alice") -> Listener:
        """A client that streams here."""
        client = await self.served.connect()
        first = json.dumps({"id": 1, "connect": {"token": token}}).encode()
        client.send(request(f"Content-Length: {len(first)}", method="POST", target="/stream") + first)
        listener = Listener(client)
        (connected,) = await listener.until(1)
        listener.session, listener.node = connected["connect"]["session"], connected["connect"]["node"]
        return listener

    async def speaker(self) -> RawClient:
        """A connection on which commands are sent."""
        return await self.served.connect()


class Listener:
    """
    A client that is told everything in one answer.
    """

    def __init__(self, raw: RawClient) -> None:
        self.raw = raw
        self.session = ""
        self.node = ""

    @property
    def told(self) -> list[Any]:
        """Every message that came, pings left out."""
        body = self.raw.data.partition(b"\r\n\r\n")[2]
        lines = [line for line in body.split(b"\n") if line.startswith(b"{") and line.rstrip(b"\r").endswith(b"}")]
        return [message for message in map(json.loads, lines) if message]

    async def until(self, number: int) -> list[Any]:
        """Wait for so many messages."""
        await eventually(lambda: len(self.told) >= number)
        return self.told

    def says(self, *commands: Any, node: str | None = None, session: str | None = None) -> bytes:
        """The request in which it says *commands*."""
        data = "\n".join(json.dumps(command) for command in commands)
        said = {
            "session": self.session if session is None else session,
            "node": self.node if node is None else node,
            "data": data,
        }
        body = json.dumps(said).encode()
        return request(f"Content-Length: {len(body)}", method="POST", target="/emulation") + body

"""
The seam between an edge and the node: one real-time client, whatever carries its bytes.

An edge (WebSocket, SSE, HTTP stream, a test) accepts a connection, makes a ``ClientTransport`` for it
and hands both to the node, which gives it a ``ClientSide``: where received messages go. Everything
is called on the reactor thread; nothing here blocks or awaits, because it is done for every frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.core.identity import Identity
from gateway.core.trace import TraceContext
from gateway.ports.dialect import Dialect

__all__ = ["ClientSide", "ClientTransport", "Form", "Opening"]


class Form(Protocol):
    """
    How messages look on the wire for all clients that share a dialect, a framing and a compression.

    Compared by identity: an edge makes each once. A publication is encoded and framed once per form.

    Attributes:
        dialect: The wire protocol inside the frames.
    """

    dialect: Dialect

    def frame(self, message: bytes) -> bytes:
        """Make the bytes for the wire of one encoded message or batch. They may be joined with others."""


class ClientTransport(Protocol):
    """
    One way to one client.

    Attributes:
        kind: ``websocket``, ``sse``, ``http_stream``.
        form: See ``Form``.
        direct: Sends framed bytes at once and returns how many the kernel took (``socket.send``:
            raises ``OSError``, ``BlockingIOError`` among them); None where that cannot be done. Only to be
            used while not blocked. A short send must be continued with ``write`` at once.
        blocked: Bytes that were written wait for the client to read. Set and cleared by the
            transport, which tells ``ClientSide.blocked`` and ``ClientSide.drained`` when it changes.
    """

    kind: str
    blocked: bool

    @property
    def form(self) -> Form:
        """How it frames."""

    @property
    def direct(self) -> Callable[[bytes], int] | None:
        """The short way to its socket."""

    def write(self, framed: bytes) -> None:
        """Send framed bytes; never blocks. What the kernel does not take is buffered without a bound."""

    def close(self, code: int, reason: str) -> None:
        """Close with a code of the protocol; what was written before goes out first, within a deadline."""

    def abort(self) -> None:
        """Cut the connection now."""

    def pause(self) -> None:
        """Read no more from the client until resumed."""

    def resume(self) -> None:
        """Read again."""


class ClientSide(Protocol):
    """
    The node's side of one client, as an edge sees it.
    """

    def received(self, frame: bytes) -> None:
        """Take the payload of one message. Must not raise."""

    def blocked(self) -> None:
        """``ClientTransport.blocked`` has become true."""

    def drained(self) -> None:
        """``ClientTransport.blocked`` has become false: everything written was taken."""

    def lost(self, code: int, reason: str, *, clean: bool) -> None:
        """
        The connection is gone; called exactly once, whoever closed it.

        Args:
            code: The close code that came or that was sent; 1006 if there was none.
            clean: The client closed it in an orderly way.
        """


@dataclass(slots=True)
class Opening:
    """
    How a client came: what the edge knows before the first message.

    Attributes:
        address: The client's address by the one rule for HTTP.
        user_agent: As sent; perhaps empty.
        origin: As sent; empty when it is no browser.
        request_id: Of the opening request, for logs.
        trace: Its place in its trace, recorded or not.
        believed: It comes from a trusted peer itself, and not through one: what it says of traces is continued.
        identity: If a credential came with the opening and was verified.
        headers: Lower-case names; what backends may be told of the opening request.
        country: As a trusted proxy says; empty if none does.
        listener: The edge's own settings for this path (``config.sections.WebSocket``).
    """

    address: str
    listener: Any
    user_agent: str = ""
    origin: str = ""
    request_id: str = ""
    trace: TraceContext | None = None
    believed: bool = False
    identity: Identity | None = None
    country: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

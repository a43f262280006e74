"""
One request's way back to its client: what the channel hands to the node as ``Downstream``.

It knows how the answer is framed; when bytes may be read and what becomes of the connection
afterwards is the channel's affair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import IProtocol, ITransport

from gateway.core.message import CHUNKED, Header, RequestHead
from gateway.ports.http import BodyReceiver, Exchange, Producer
from gateway.web.reply import CONTINUE, status_line

if TYPE_CHECKING:
    from gateway.web.channel import Channel

__all__ = ["ClientRequest"]

# How the body of an answer is delimited.
_BY_LENGTH, _BY_CHUNKS, _BY_CLOSE, _NONE = range(4)


class ClientRequest:
    """
    A request on a connection, and the answer to it (``ports.http.Upgrade``).

    Attributes:
        exchange: What the node made of it; None until ``begin`` has returned.
        receiver: Who takes the body.
        body_paused: The receiver wants no more of it for now.
        producer: Who writes the answer's body.
        keep: The connection may be used again after the answer; settled by ``start``.
        whole: The answer is complete.
        fault: Status and code with which the channel itself answered, if it did.
    """

    __slots__ = (
        "_channel",
        "_framing",
        "_left",
        "body_paused",
        "bytes_in",
        "bytes_out",
        "exchange",
        "fault",
        "head",
        "keep",
        "max_body_bytes",
        "peer",
        "producer",
        "receiver",
        "started",
        "trailers",
        "whole",
    )

    def __init__(self, channel: Channel, head: RequestHead, max_body_bytes: int) -> None:
        self._channel: Channel | None = channel
        self._framing = _BY_LENGTH
        self._left = 0
        self.head = head
        self.peer = channel.peer
        self.max_body_bytes = max_body_bytes
        self.started = False
        self.bytes_in = 0
        self.bytes_out = 0
        self.trailers: list[Header] = []
        self.exchange: Exchange | None = None
        self.receiver: BodyReceiver | None = None
        self.body_paused = False
        self.producer: Producer | None = None
        self.keep = head.keep_alive
        self.whole = False
        self.fault: tuple[int, str] | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more can be done with it."""
        return self._channel is None

    def detach(self) -> None:
        """
        Let every further call do nothing.
        """
        self._channel = None
        self.receiver = None
        self.producer = None

    def start(self, status: int, reason: bytes, block: bytes, length: int, data: bytes, ended: bool) -> None:
        """
        Send the response head and the first bytes of the body (``Downstream.start``).
        """
        channel = self._channel
        if channel is None or self.started:
            return
        self.started = True
        head = self.head
        keep = self.keep = channel.may_keep(self, ended)
        if status in (204, 205, 304) or head.method == b"HEAD":
            self._framing = _NONE
            if status == 205:
                framing = b"Content-Length: 0\r\n"
            elif status == 204 or length < 0 or (status == 304 and length == 0):
                framing = b""
            else:
                framing = b"Content-Length: %d\r\n" % length
            data = b""
        elif ended:
            if length not in (len(data), CHUNKED):
                self.abort()
                return
            framing = b"Content-Length: %d\r\n" % len(data)
        elif length >= 0:
            self._left = length - len(data)
            if self._left < 0:
                self.abort()
                return
            framing = b"Content-Length: %d\r\n" % length
        elif head.minor == 1:
            self._framing = _BY_CHUNKS
            framing = b"Transfer-Encoding: chunked\r\n"
        else:
            self._framing = _BY_CLOSE
            self.keep = keep = False
            framing = b""
        if not keep:
            connection = b"Connection: close\r\n\r\n"
        elif head.minor == 1:
            connection = b"\r\n"
        else:
            connection = b"Connection: keep-alive\r\n\r\n"
        size = len(data)
        self.bytes_out = size
        if size and self._framing == _BY_CHUNKS:
            data = b"%x\r\n%b\r\n" % (size, data)
        channel.write(
            b"".join(
                (status_line(status, reason), channel.site.preamble.beside(block), block, framing, connection, data)
            )
        )
        if ended:
            self._end(channel)

    def write(self, data: bytes) -> None:
        """
        Send more of the body (``Downstream.write``).
        """
        channel = self._channel
        # An empty chunk would end the body.
        if channel is None or not data:
            return
        if not self.started:
            self.abort()
            return
        size = len(data)
        framing = self._framing
        if framing == _BY_CHUNKS:
            data = b"%x\r\n%b\r\n" % (size, data)
        elif framing == _BY_LENGTH:
            self._left -= size
            if self._left < 0:
                # More than was announced would be read as the next response.
                self.abort()
                return
        elif framing == _NONE:
            return
        self.bytes_out += size
        channel.write(data)

    def finish(self, trailers: bytes = b"") -> None:
        """
        End the body (``Downstream.finish``); one shorter than announced is cut, not ended.
        """
        channel = self._channel
        if channel is None:
            return
        if not self.started or (self._framing == _BY_LENGTH and self._left):
            self.abort()
            return
        if self._framing == _BY_CHUNKS:
            channel.write(b"0\r\n%b\r\n" % trailers)
        self._end(channel)

    def _end(self, channel: Channel) -> None:
        self.whole = True
        self.detach()
        channel.answered(self)

    def abort(self) -> None:
        """
        Cut the connection (``Downstream.abort``).
        """
        channel = self._channel
        if channel is not None:
            channel.cut(self)

    def inform(self, status: int, block: bytes) -> None:
        """
        Send an interim response (``Downstream.inform``); HTTP/1.0 knows none.
        """
        channel = self._channel
        if channel is not None and not self.started and self.head.minor == 1 and 101 < status < 200:
            channel.write(b"%b%b\r\n" % (status_line(status, b""), block))

    def receive(self, receiver: BodyReceiver) -> None:
        """
        Begin delivering the body (``Downstream.receive``).
        """
        channel = self._channel
        if channel is None or self.receiver is not None:
            return
        head = self.head
        if head.body_length > self.max_body_bytes:
            channel.fail(self, 413, "body_too_large")
            return
        self.receiver = receiver
        if head.body_length == 0:
            receiver.received(b"", True)
            return
        if head.expect_continue and not self.started and not channel.has_input():
            channel.write(CONTINUE)
        channel.begin_body(self)

    def pause_body(self) -> None:
        """
        Hold the body back (``Downstream.pause_body``).
        """
        if self._channel is not None and not self.body_paused:
            self.body_paused = True
            self._channel.body_paused()

    def resume_body(self) -> None:
        """
        Let the body come again (``Downstream.resume_body``).
        """
        if self._channel is not None and self.body_paused:
            self.body_paused = False
            self._channel.body_resumed(self)

    def register(self, producer: Producer) -> None:
        """
        Name who writes the body (``Downstream.register``).
        """
        channel = self._channel
        if channel is not None:
            self.producer = producer
            if channel.blocked:
                producer.pauseProducing()

    def take_over(self, successor: IProtocol) -> tuple[ITransport, bytes]:
        """
        Give the connection away (``Upgrade.take_over``).
        """
        channel = self._channel
        if channel is None or self.started or self.head.body_length:
            raise RuntimeError("this exchange cannot be taken over")
        self.whole = True
        self.detach()
        return channel.give_away(self, successor)

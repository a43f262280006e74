"""
A ``Downstream`` that remembers what it was told.
"""

from gateway.core.message import Header, RequestHead
from gateway.ports.http import BodyReceiver, Peer, Producer


class Recorded:
    """
    One request whose answer is kept in memory.
    """

    def __init__(self, head: RequestHead, peer: Peer | None = None, body: bytes = b"") -> None:
        self.head = head
        self.peer = peer or Peer("192.0.2.7", 4711)
        self.started = False
        self.bytes_in = 0
        self.bytes_out = 0
        self.max_body_bytes = 1 << 30
        self.status = 0
        self.block = b""
        self.body = b""
        self.ended = False
        self.aborted = False
        self.trailers: list[Header] = []
        self._request_body = body

    def start(self, status: int, reason: bytes, block: bytes, length: int, data: bytes, ended: bool) -> None:
        assert not self.started, "two heads"
        self.started = True
        self.status = status
        self.block = block
        self.write(data)
        self.ended = ended

    def write(self, data: bytes) -> None:
        self.body += data
        self.bytes_out += len(data)

    def finish(self, trailers: bytes = b"") -> None:
        self.ended = True

    def abort(self) -> None:
        self.aborted = True

    def inform(self, status: int, block: bytes) -> None:
        pass

    def receive(self, receiver: BodyReceiver) -> None:
        self.bytes_in += len(self._request_body)
        receiver.received(self._request_body, True)

    def pause_body(self) -> None:
        pass

    def resume_body(self) -> None:
        pass

    def register(self, producer: Producer) -> None:
        pass


def head(method: str, target: str, headers: dict[str, str] | None = None, **more: int | bool) -> RequestHead:
    """
    A request head as the channel would have made it.
    """
    pairs = [(name.encode(), value.encode()) for name, value in {"Host": "gw.example", **(headers or {})}.items()]
    return RequestHead(
        method.encode(),
        target.encode(),
        pairs,
        {name.lower(): value for name, value in pairs},
        **more,  # type: ignore[arg-type]  # a test's shorthand
    )

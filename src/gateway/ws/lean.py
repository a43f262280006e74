"""
The same WebSocket, faster: what nearly every client sends is read in a few lines, the rest by Autobahn.

Autobahn sets up some fifty attributes for each connection; here they are the class's until one changes.
The short ways take a plain handshake without extensions, and whole unfragmented masked messages when
nothing else is pending. Every other byte goes the long way. The private names that this relies on are
listed, and looked at before the first use: where one is missing the long way serves everybody.
"""

from __future__ import annotations

from collections import deque
from dis import get_instructions
from typing import Any, Final

from autobahn.websocket import protocol
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from gateway.ports.clients import Form
from gateway.ws.closing import ClosingWatch
from gateway.ws.connection import OPEN, Autobahn, Connection

__all__ = ["LeanConnection", "missing"]

_base: Any = protocol

_SHORTEST: Final = 6
_TEXT: Final = 0x81
_WHOLE: Final = (0x81, 0x82)
_MASKED: Final = 0x80
_LONGEST_FAST: Final = 16384

_RELIED_ON: Final = (
    "CONFIG_ATTRS",
    "SEND_STATE_GROUND",
    "STATE_CONNECTING",
    "STATE_OPEN",
    "_connectionLost",
    "_dataReceived",
    "_fail_connection",
    "_invalid_payload",
    "_onOpen",
    "_protocol_violation",
    "consumeData",
    "processHandshake",
    "sendCloseFrame",
)
_READ_HERE: Final = frozenset(("data", "state", "current_frame", "inside_message", "failedByMe", "wasClean"))
_OF_A_HANDSHAKE: Final = frozenset(
    ("countConnections", "http_response_data", "is_open", "is_closed", "serverConnectionDropTimeoutCall")
)


def missing() -> str:
    """
    Name what this Autobahn lacks, or has beyond what is known here; empty if the short ways are safe.
    """
    for name in _RELIED_ON:
        if not hasattr(Autobahn, name):
            return f"WebSocketServerProtocol.{name}"
    stored = {
        instruction.argval
        for function in (
            _base.WebSocketProtocol.__init__,
            _base.WebSocketProtocol._connectionMade,
            _base.WebSocketServerProtocol._connectionMade,
            _base.WebSocketServerProtocol.succeedHandshake,
        )
        for instruction in get_instructions(function)
        if instruction.opname == "STORE_ATTR"
    }
    names = {*(stored - set(_STATE) - set(_LAZY) - _OF_A_HANDSHAKE), *(_READ_HERE - stored)}
    return f"WebSocketServerProtocol().{min(names)}" if names else ""


class _Made:
    """
    An attribute that is made when it is first asked for.
    """

    def __init__(self, make: Any) -> None:
        self._make = make
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        value = instance.__dict__[self._name] = self._make()
        return value


_STATE: Final[dict[str, Any]] = {
    "_perMessageCompress": None,
    "trackedTimings": None,
    "trafficStats": _base.TrafficStats(),
    "state": Autobahn.STATE_CONNECTING,
    "send_state": Autobahn.SEND_STATE_GROUND,
    "data": b"",
    "triggered": False,
    "current_frame": None,
    "inside_message": False,
    "wasMaxFramePayloadSizeExceeded": False,
    "wasMaxMessagePayloadSizeExceeded": False,
    "closedByMe": False,
    "failedByMe": False,
    "droppedByMe": False,
    "wasClean": False,
    "wasNotCleanReason": None,
    "wasServerConnectionDropTimeout": False,
    "wasOpenHandshakeTimeout": False,
    "wasCloseHandshakeTimeout": False,
    "wasServingFlashSocketPolicyFile": False,
    "localCloseCode": None,
    "localCloseReason": None,
    "remoteCloseCode": None,
    "remoteCloseReason": None,
    "openHandshakeTimeoutCall": None,
    "closeHandshakeTimeoutCall": None,
    "autoPingTimeoutCall": None,
    "autoPingPending": None,
    "autoPingPendingCall": None,
    "autoPingPendingSeq": 0,
    "autoPingPendingSent": None,
    "websocket_protocol_in_use": None,
    "websocket_version": 13,
    "websocket_protocols": (),
    "websocket_extensions": (),
    "websocket_extensions_in_use": (),
    "websocket_origin": None,
    "http_headers": None,
    "_transport_details": None,
    "_parent": None,
    "_valid_events": None,
    "_listeners": None,
}
_LAZY: Final = {
    "utf8validator": _base.Utf8Validator,
    "send_queue": deque,
    "is_open": Deferred,
    "is_closed": Deferred,
}


class LeanConnection(Connection):
    """
    A client's WebSocket by the short ways. Made by the edge, which adds Autobahn's options to a subclass.
    """

    peer = ""

    def __init__(self, form: Form, protocol: str, watch: ClosingWatch, close_timeout_s: float) -> None:
        # Not Autobahn's own: what it sets is the class's.
        self.form = form
        self._protocol = protocol
        self._watch = watch
        self._close_timeout_s = close_timeout_s

    def begin(self, transport: Any, request: bytes) -> bool:
        """
        Shake hands by Autobahn, which alone negotiates extensions.
        """
        self.transport = transport
        self.connected = 1
        self.dataReceived(request)
        return self._begun()

    def open(self, transport: Any, answer: bytes) -> bool:
        """
        Shake hands with an answer that is ready.
        """
        self.transport = transport
        self.connected = 1
        transport.write(answer)
        self.state = OPEN
        return self._begun()

    def _onOpen(self) -> None:
        pass

    def dataReceived(self, data: bytes) -> None:
        """
        Take whole messages; anything else is Autobahn's.
        """
        if self.failedByMe:
            return
        if self.state != OPEN or self.data or self.current_frame is not None or self.inside_message:
            self._dataReceived(data)
            return
        size = len(data)
        at = 0
        side: Any = self.side
        while size - at >= _SHORTEST:
            first = data[at]
            length = data[at + 1] - _MASKED
            if first not in _WHOLE or length < 0:
                break
            start = at + 2
            if length > 125:  # noqa: PLR2004  # the last length that is its own
                if length == 127 or size - at < 8:  # noqa: PLR2004  # eight bytes of length, or not all here
                    break
                length = data[start] << 8 | data[start + 1]
                start += 2
                if length < 126:  # noqa: PLR2004  # should have been the short form
                    break
            end = start + 4 + length
            if end > size or length > _LONGEST_FAST or length > self.maxMessagePayloadSize:
                break
            mask = data[start : start + 4] * ((length >> 2) + 1)
            payload = (
                int.from_bytes(data[start + 4 : end], "little") ^ int.from_bytes(mask[:length], "little")
            ).to_bytes(length, "little")
            if first == _TEXT and not payload.isascii():
                try:
                    payload.decode()
                except UnicodeDecodeError:
                    break
            at = end
            side.received(payload)
            if self.state != OPEN:
                return
        if at < size:
            self._dataReceived(data[at:] if at else data)

    def connectionLost(self, reason: Failure) -> None:
        """
        The connection is gone.
        """
        self._watch.forget(self)
        self._connectionLost(reason)


for _name, _value in _STATE.items():
    setattr(LeanConnection, _name, _value)
for _name, _make in _LAZY.items():
    _made = _Made(_make)
    _made.__set_name__(LeanConnection, _name)
    setattr(LeanConnection, _name, _made)

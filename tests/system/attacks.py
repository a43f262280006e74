"""
What a stranger can do to a gateway from outside, over plain sockets.
"""

from __future__ import annotations

import base64
import socket
import struct
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

__all__ = ["ATTACKS", "code_of", "frame", "idle", "opened", "over", "resident"]

REQUEST = b"GET /health HTTP/1.1\r\nHost: gateway\r\n\r\n"


def connected(port: int) -> socket.socket:
    """Connect, and wait at most ten seconds for whatever comes."""
    made = socket.create_connection(("127.0.0.1", port), timeout=10)
    made.settimeout(10)
    return made


def idle(port: int, count: int) -> list[socket.socket]:
    """Open connections that say nothing."""
    return [connected(port) for _ in range(count)]


def over(connection: socket.socket) -> bool:
    """Whether the other side has ended *connection*; what it still sent is dropped."""
    connection.setblocking(False)
    try:
        while connection.recv(65536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def opened(port: int, *, deflate: bool = False) -> socket.socket:
    """Open a WebSocket at ``/ws``."""
    made = connected(port)
    key = base64.b64encode(bytes(16))
    extension = b"Sec-WebSocket-Extensions: permessage-deflate\r\n" if deflate else b""
    made.sendall(
        b"GET /ws HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n%b\r\n" % (key, extension)
    )
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += made.recv(1)
    assert answer.startswith(b"HTTP/1.1 101 "), answer
    return made


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    """A client's frame, masked with zeros."""
    first, size = (0x80 if fin else 0) | rsv << 4 | opcode, len(payload)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + bytes(4) + payload


def code_of(connection: socket.socket) -> int:
    """Read to the end; the code of the close frame, 1006 without one."""
    data = b""
    with suppress(OSError):
        while piece := connection.recv(65536):
            data += piece
    at = data.rfind(b"\x88")
    return int(struct.unpack("!H", data[at + 2 : at + 4])[0]) if at >= 0 and len(data) >= at + 4 else 1006


def _send(connection: socket.socket, data: bytes, times: int = 1) -> int:
    # It may be cut at any moment.
    with suppress(OSError):
        for _ in range(times):
            connection.sendall(data)
    return code_of(connection)


def _bomb(port: int) -> int:
    packed = zlib.compressobj(wbits=-15)
    data = (packed.compress(bytes(50_000_000)) + packed.flush(zlib.Z_SYNC_FLUSH))[:-4]
    return _send(opened(port, deflate=True), frame(1, data, rsv=4))


def _fragments(port: int) -> int:
    return _send(opened(port), frame(1, b"", fin=False) + frame(0, b"", fin=False) * 2000, 50)


def _long(port: int) -> int:
    return _send(opened(port), frame(1, b"a" * 1_000_000))


def _unmasked(port: int) -> int:
    return _send(opened(port), b"\x81\x01a")


def _flood(port: int) -> int:
    return _send(opened(port), frame(1, b'{"id":1,"ping":{}}') * 100, 200)


def _nonsense(port: int) -> int:
    return _send(opened(port), frame(1, b'{"id":') + frame(2, b"\xff" * 100))


ATTACKS: dict[str, tuple[Callable[[int], int], tuple[int, ...]]] = {
    "a deflate bomb": (_bomb, (1009,)),
    "empty fragments": (_fragments, (1008,)),
    "a message too long": (_long, (1009,)),
    "an unmasked frame": (_unmasked, (1002,)),
    # Nobody who is not known may say anything but who it is.
    "a flood before it says who it is": (_flood, (3501, 3003)),
    "nonsense": (_nonsense, (3501,)),
}
"""By name: what is done, and the codes with which it may end."""


def resident(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def slow_head(port: int) -> socket.socket:
    """Begin a request, and send a byte of it now and then."""
    made = connected(port)
    made.sendall(REQUEST[:20])
    return made


def waited(connections: list[socket.socket], within_s: float) -> int:
    """Wait until the other side has ended all *connections*; how many it has not."""
    until = time.monotonic() + within_s
    left = connections
    while left and time.monotonic() < until:
        left = [each for each in left if not over(each)]
        time.sleep(0.05)
    return len(left)

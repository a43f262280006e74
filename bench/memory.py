"""
Memory of the gateway while 1 GB goes up and 1 GB comes down, through peers that stop for 2 s at a time.

Whoever stops does not read, so that what the other side sends has to wait somewhere: in the sockets'
buffers, which are the kernel's, or in the gateway, which is what is measured.
"""

from __future__ import annotations

import socket
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bench.machine import Layout, resident_bytes, tree
from bench.targets import gateway, make_key, pinned, token
from demo.ports import free_port

__all__ = ["MOST_GROWTH", "Passed", "measure"]

MIB = 1024 * 1024
MOST_GROWTH = 16 * MIB
SIZE = 1_000_000_000
BETWEEN_STOPS = 48 * MIB
STOP_S = 2.0
SAMPLE_S = 0.1
BLOCK = bytes(range(256)) * 1024
DEADLINE_S = 240.0


@dataclass(frozen=True, slots=True)
class Passed:
    """
    What was seen. Sizes in bytes.

    Attributes:
        up, down: What arrived at the backend, and at the client.
        before, most: Resident memory before it began, and the most that was seen.
    """

    up: int
    down: int
    seconds: float
    backend_stops: int
    client_stops: int
    before: int
    most: int
    samples: int

    @property
    def growth(self) -> int:
        """By how much it grew."""
        return self.most - self.before


@dataclass(slots=True)
class Body:
    """
    What a reader that stops now and then has received.
    """

    size: int = 0
    crc: int = 0
    stops: int = 0

    def take(self, received: bytes) -> None:
        """Count *received*, and stop after each ``BETWEEN_STOPS``."""
        before, self.size = self.size // BETWEEN_STOPS, self.size + len(received)
        self.crc = zlib.crc32(received, self.crc)
        if self.size // BETWEEN_STOPS > before:
            self.stops += 1
            time.sleep(STOP_S)


def measure(cores: Layout, say: Callable[[str], None]) -> Passed:
    """
    Pass it all through a gateway; return what was seen.

    Raises:
        SystemExit: it did not arrive whole.
    """
    up = Body()
    with tempfile.TemporaryDirectory(prefix="bench-") as place, socket.create_server(("127.0.0.1", 0)) as listener:
        folder = Path(place)
        bearer = token(make_key(folder))
        threading.Thread(target=_backend, args=(listener, up), daemon=True).start()
        port = free_port()
        command = gateway(folder, listener.getsockname()[1])(port)
        with pinned(cores.measured, command, folder, port) as pid:
            pids = tree(pid)
            for _ in range(20):
                _download(port, bearer, Body(), MIB)
                _upload(port, bearer, MIB)
            up.size = up.crc = up.stops = 0
            return _watched(port, bearer, up, pids, say)


def _watched(port: int, bearer: str, up: Body, pids: list[int], say: Callable[[str], None]) -> Passed:
    down = Body()
    before = most = resident_bytes(pids)
    begun = time.monotonic()
    ways = [
        threading.Thread(target=_download, args=(port, bearer, down, SIZE), daemon=True),
        threading.Thread(target=_upload, args=(port, bearer, SIZE), daemon=True),
    ]
    for way in ways:
        way.start()
    samples = 0
    while any(way.is_alive() for way in ways):
        most = max(most, resident_bytes(pids))
        samples += 1
        if samples % 50 == 0:
            say(f"{up.size // MIB} MiB up, {down.size // MIB} MiB down, grown by {(most - before) / MIB:.1f} MiB")
        if time.monotonic() - begun > DEADLINE_S:
            raise SystemExit(f"bench: {up.size} bytes up and {down.size} down after {DEADLINE_S:.0f} s")
        time.sleep(SAMPLE_S)
    seconds = time.monotonic() - begun
    whole = _crc(SIZE)
    if (up.size, up.crc, down.size, down.crc) != (SIZE, whole, SIZE, whole):
        raise SystemExit(f"bench: of {SIZE} bytes {up.size} came up and {down.size} down, or others than were sent")
    return Passed(up.size, down.size, seconds, up.stops, down.stops, before, most, samples)


def _crc(size: int) -> int:
    crc = 0
    for start in range(0, size, len(BLOCK)):
        crc = zlib.crc32(BLOCK[: size - start], crc)
    return crc


def _send(connection: socket.socket, size: int) -> None:
    for start in range(0, size, len(BLOCK)):
        connection.sendall(BLOCK[: size - start])


def _head(connection: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        received = connection.recv(65536)
        if not received:
            raise SystemExit("bench: the connection was closed before a head was complete")
        data += received
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _backend(listener: socket.socket, up: Body) -> None:
    def serve(connection: socket.socket) -> None:
        with connection:
            head, rest = _head(connection)
            if head.startswith(b"POST"):
                _receive(connection, up, _length(head), rest)
                connection.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            elif head.startswith(b"GET /health"):
                connection.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            else:
                size = int(head.split(b" ", 2)[1].rpartition(b"/")[2])
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % size)
                _send(connection, size)

    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


def _length(head: bytes) -> int:
    return next(
        int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
    )


def _receive(connection: socket.socket, body: Body, size: int, rest: bytes) -> None:
    left = size - len(rest)
    body.take(rest)
    while left:
        received = connection.recv(min(left, 256 * 1024))
        if not received:
            return
        left -= len(received)
        body.take(received)


def _request(port: int, bearer: str, first: str, more: str = "") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    head = (
        f"{first} HTTP/1.1\r\nHost: bench.example\r\nAuthorization: Bearer {bearer}\r\nConnection: close\r\n{more}\r\n"
    )
    connection.sendall(head.encode("ascii"))
    return connection


def _download(port: int, bearer: str, body: Body, size: int) -> None:
    with closing(_request(port, bearer, f"GET /api/down/{size}")) as connection:
        head, rest = _head(connection)
        if head.startswith(b"HTTP/1.1 200 "):
            _receive(connection, body, size, rest)


def _upload(port: int, bearer: str, size: int) -> None:
    with closing(_request(port, bearer, "POST /api/up", f"Content-Length: {size}\r\n")) as connection:
        _send(connection, size)
        _head(connection)

"""
A backend that writes down every request that reaches it, as raw as it came.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["Backend", "recording"]

BODY = b'{"backend":"says hello"}'


@dataclass(slots=True)
class Backend:
    """
    Attributes:
        port: On 127.0.0.1.
        heads: The heads received, health checks left out.
    """

    port: int
    heads: list[bytes] = field(default_factory=list)
    asked: threading.Event = field(default_factory=threading.Event)

    @property
    def upstream(self) -> str:
        """An upstream section, and a route that demands a token."""
        return f"""
[upstream.backend]
http = ["http://127.0.0.1:{self.port}"]

[[route]]
path = "/api/**"
upstream = "backend"
"""


@contextmanager
def recording() -> Iterator[Backend]:
    """
    Run a backend in threads of its own.

    ``/api/slow/S`` answers after S seconds; everything else at once.
    """
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    backend = Backend(listener.getsockname()[1])
    ending = threading.Event()

    def serve(connection: socket.socket) -> None:
        buffer = b""
        with connection:
            connection.settimeout(30)
            try:
                while not ending.is_set():
                    while b"\r\n\r\n" not in buffer:
                        received = connection.recv(65536)
                        if not received:
                            return
                        buffer += received
                    head, _, buffer = buffer.partition(b"\r\n\r\n")
                    backend.heads.append(head)
                    backend.asked.set()
                    path = head.split(b" ", 2)[1]
                    if path.startswith(b"/api/slow/"):
                        time.sleep(float(path.rpartition(b"/")[2]))
                    connection.sendall(
                        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                        % (len(BODY), BODY)
                    )
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield backend
    finally:
        ending.set()
        # Closing alone does not wake a thread in accept.
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()

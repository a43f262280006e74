"""
A backend that answers with whatever bytes a test hands it, on a real socket, in a thread.
"""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Script = Callable[[socket.socket], None]


class RawBackend:
    """
    Accepts connections on loopback, or on a socket of a test's own; each runs the script in a thread of its own.
    """

    def __init__(self, script: Script, listening: socket.socket | None = None) -> None:
        self._script = script
        self._listening = listening or socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = 0 if listening else self._listening.getsockname()[1]
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            connection.settimeout(20)
            self.connections.append(connection)
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection: socket.socket) -> None:
        try:
            self._script(connection)
        except OSError:
            pass
        finally:
            connection.close()

    def close(self) -> None:
        self._listening.close()
        for connection in self.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


@contextmanager
def backend(script: Script) -> Iterator[RawBackend]:
    running = RawBackend(script)
    try:
        yield running
    finally:
        running.close()


def read_head(connection: socket.socket) -> bytes:
    """
    Read up to the end of one request's head; empty at the end of the connection.
    """
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(1)
        if not more:
            return b""
        data += more
    return data


def answering(*answers: bytes, close: bool = False) -> Script:
    """
    Answer each request's head with the next of *answers*, the last one over and over.
    """

    def script(connection: socket.socket) -> None:
        number = 0
        while read_head(connection):
            connection.sendall(answers[min(number, len(answers) - 1)])
            number += 1
            if close:
                return

    return script

"""
Backends that speak gRPC, and some that only seem to.
"""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Served:
    """
    Bytes in, bytes out, for any method; remembers what it was asked.
    """

    def __init__(self, answer: Callable[[bytes, Any], Any]) -> None:
        self.answer = answer
        self.metadata: list[dict[str, Any]] = []
        self.remaining: list[float] = []
        self.cancelled = threading.Event()

    def __call__(self, request: bytes, context: Any) -> Any:
        self.metadata.append(dict(context.invocation_metadata()))
        self.remaining.append(context.time_remaining())
        context.add_callback(lambda: self.cancelled.set() if not context.is_active() else None)
        return self.answer(request, context)


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    def __init__(self, served: Served) -> None:
        self._served = served

    def service(self, details: Any) -> Any:
        if "Stream" in details.method:
            return grpc.unary_stream_rpc_method_handler(self._served)
        return grpc.unary_unary_rpc_method_handler(self._served)


@contextmanager
def grpc_backend(
    answer: Callable[[bytes, Any], Any], *, port: int = 0, options: tuple[tuple[str, Any], ...] = ()
) -> Iterator[tuple[int, Served]]:
    """
    A real grpcio server on loopback.
    """
    served = Served(answer)
    server = grpc.server(
        ThreadPoolExecutor(100),
        options=[("grpc.so_reuseport", 0), ("grpc.max_send_message_length", -1), *options],
    )
    server.add_generic_rpc_handlers((_Handlers(served),))
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield bound, served
    finally:
        server.stop(0).wait(5)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """
    One HTTP/2 frame.
    """
    return struct.pack("!I", len(payload))[1:] + bytes((kind, flags)) + struct.pack("!I", stream) + payload


def header(name: bytes, value: bytes) -> bytes:
    """
    One header field, HPACK without indexing and without Huffman coding.
    """
    return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value


HEAD = header(b":status", b"200") + header(b"content-type", b"application/grpc")
SETTINGS = frame(4, 0, 0) + frame(4, 1, 0)


@contextmanager
def raw_backend(script: Callable[[socket.socket], None]) -> Iterator[int]:
    """
    Runs *script* on each connection, once the client's preface and first request have come.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    opened: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        connection.settimeout(10)
        try:
            data = b""
            connection.sendall(SETTINGS)
            # A request is there once a HEADERS frame on stream 1 has come (type 1, stream 1).
            while not any(
                data[at + 3 : at + 4] == b"\x01" and data[at + 5 : at + 9] == b"\0\0\0\x01" for at in range(len(data))
            ):
                more = connection.recv(65536)
                if not more:
                    return
                data += more
            script(connection)
            while connection.recv(65536):
                pass
        except OSError:
            pass
        finally:
            connection.close()

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            opened.append(connection)
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.close()
        for connection in opened:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

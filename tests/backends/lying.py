"""
A backend that misbehaves on request and remembers, in full, everything it was asked.

    python lying.py

prints ``{"port": ..., "control": ...}`` and runs until its standard input is closed. What it does
with a request is named by the path ``/lie/NAME``, else by the next name of the script that the
control port was told, else it answers well. NAME is one of the functions below; what follows
``?`` is handed to it.

The control port takes one JSON object a line and answers with one: ``{"do": "seen"}``,
``{"do": "forget"}``, ``{"do": "script", "names": [...]}``, ``{"do": "listen", "on": false}``.
"""

import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from typing import Any
from urllib.parse import parse_qsl

RESET = struct.pack("ii", 1, 0)


class Asked:
    """
    One request.

    Attributes:
        gone: The asker closed its connection before it was answered, seconds after the head came.
    """

    def __init__(self, head: bytes) -> None:
        lines = head.split(b"\r\n")
        self.method, self.target, self.version = (part.decode("latin-1") for part in lines[0].split(b" "))
        self.headers = [tuple(part.strip().decode("latin-1") for part in line.split(b":", 1)) for line in lines[1:-2]]
        self.trailers: list[str] = []
        self.body = b""
        self.body_bytes = 0
        self.whole = False
        self.gone: float | None = None
        self.at = time.monotonic()
        self.connection = 0

    def header(self, name: str) -> str | None:
        for key, value in self.headers:
            if key.lower() == name:
                return value
        return None

    def told(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "target": self.target,
            "headers": self.headers,
            "trailers": self.trailers,
            "body": self.body.decode("latin-1"),
            "body_bytes": self.body_bytes,
            "whole": self.whole,
            "gone": self.gone,
            "at": self.at,
            "connection": self.connection,
        }


class Lines:
    """
    A socket that is read by line and by length.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.data = b""

    def until(self, mark: bytes) -> bytes:
        while mark not in self.data:
            more = self.socket.recv(65536)
            if not more:
                return b""
            self.data += more
        found, _, self.data = self.data.partition(mark)
        return found + mark

    def some(self, most: int) -> bytes:
        data = self.data or self.socket.recv(min(most, 65536))
        self.data = data[most:]
        return data[:most]


class Conversation:
    """
    One connection: its requests, one after the other.
    """

    numbers = 0

    def __init__(self, backend: "Backend", connection: socket.socket) -> None:
        self.backend = backend
        self.socket = connection
        self.lines = Lines(connection)
        self.keep = True
        Conversation.numbers += 1
        self.number = Conversation.numbers

    def run(self) -> None:
        try:
            while self.keep:
                head = self.lines.until(b"\r\n\r\n")
                if not head:
                    return
                asked = Asked(head)
                asked.connection = self.number
                with self.backend.lock:
                    self.backend.asked.append(asked)
                path, _, query = asked.target.partition("?")
                name = path.removeprefix("/lie/") if path.startswith("/lie/") else self.backend.next()
                LIES[name](self, asked, dict(parse_qsl(query)))
        except OSError:
            pass
        finally:
            self.socket.close()

    # What the lies are made of.

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def take(self, asked: Asked) -> None:
        """Read the body, whole."""
        for data in self.pieces(asked):
            if len(asked.body) < 65536:
                asked.body += data

    def pieces(self, asked: Asked) -> Any:
        if asked.header("transfer-encoding") == "chunked":
            while size := int(self.lines.until(b"\r\n").split(b";")[0] or b"0", 16):
                yield from self._exactly(asked, size)
                self.lines.until(b"\r\n")
            while (line := self.lines.until(b"\r\n")) not in {b"\r\n", b""}:
                asked.trailers.append(line.strip().decode("latin-1"))
        else:
            yield from self._exactly(asked, int(asked.header("content-length") or 0))
        asked.whole = True

    def _exactly(self, asked: Asked, size: int) -> Any:
        while size:
            data = self.lines.some(size)
            if not data:
                raise OSError("the asker left")
            size -= len(data)
            asked.body_bytes += len(data)
            yield data

    def until_gone(self, asked: Asked) -> None:
        """Say nothing until the asker closes."""
        self.keep = False
        try:
            while self.socket.recv(65536):
                pass
        except OSError:
            pass
        asked.gone = time.monotonic() - asked.at

    def answer(self, asked: Asked, status: str, body: bytes = b"", *headers: str) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
        self.send("\r\n".join(lines).encode("latin-1") + (b"" if asked.method == "HEAD" else body))

    def reset(self) -> None:
        self.keep = False
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.socket.close()


Options = dict[str, str]


def ok(talk: Conversation, asked: Asked, options: Options) -> None:
    """Answer well: who asked for what, as JSON."""
    talk.take(asked)
    body = json.dumps(asked.told()).encode()
    talk.answer(asked, "200 OK", body, "Content-Type: application/json", "X-Backend: " + talk.backend.name)


def echo(talk: Conversation, asked: Asked, options: Options) -> None:
    """Send the body back while it comes."""
    talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for data in talk.pieces(asked):
        talk.send(b"%x\r\n%b\r\n" % (len(data), data))
    talk.send(b"0\r\n\r\n")


def count(talk: Conversation, asked: Asked, options: Options) -> None:
    """Read the body with pauses of *pause* seconds, and say how much it was."""
    for number, _ in enumerate(talk.pieces(asked)):
        if number % 64 == 0:
            time.sleep(float(options.get("pause", 0)))
    talk.answer(asked, "200 OK", str(asked.body_bytes).encode())


def pour(talk: Conversation, asked: Asked, options: Options) -> None:
    """Send *mib* MiB of a body without a length; without *mib*, never stop."""
    talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    left = int(float(options.get("mib", "inf")) * 16) if "mib" in options else -1
    try:
        while left:
            talk.send(piece)
            asked.body_bytes += 65536
            left -= 1
    except OSError:
        asked.gone = time.monotonic() - asked.at
        raise
    talk.send(b"0\r\n\r\n")


def slow(talk: Conversation, asked: Asked, options: Options) -> None:
    """Answer well after *seconds*."""
    time.sleep(float(options.get("seconds", 0.2)))
    ok(talk, asked, options)


def stall(talk: Conversation, asked: Asked, options: Options) -> None:
    """Take the request and never answer."""
    talk.take(asked)
    talk.until_gone(asked)


def deaf(talk: Conversation, asked: Asked, options: Options) -> None:
    """Neither read the body nor answer."""
    time.sleep(float(options.get("seconds", 30)))


def stall_body(talk: Conversation, asked: Asked, options: Options) -> None:
    """Begin a body and never go on."""
    talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun")
    talk.until_gone(asked)


def reset(talk: Conversation, asked: Asked, options: Options) -> None:
    """Take the request and reset the connection."""
    talk.take(asked)
    talk.reset()


def close(talk: Conversation, asked: Asked, options: Options) -> None:
    """Take the request and close the connection."""
    talk.take(asked)
    talk.keep = False


def reset_early(talk: Conversation, asked: Asked, options: Options) -> None:
    """Reset the connection without reading the body."""
    talk.reset()


def early(talk: Conversation, asked: Asked, options: Options) -> None:
    """Answer without reading the body, and close."""
    talk.answer(asked, "403 Forbidden", b"no", "Connection: close")
    talk.keep = False
    talk.socket.shutdown(socket.SHUT_WR)
    talk.until_gone(asked)


def busy(talk: Conversation, asked: Asked, options: Options) -> None:
    """Say *status* (503), and when to come again (*after*)."""
    talk.take(asked)
    after = [f"Retry-After: {options['after']}"] if "after" in options else []
    talk.answer(asked, f"{options.get('status', 503)} Sorry", b"sorry", *after)


def busy_early(talk: Conversation, asked: Asked, options: Options) -> None:
    """Say 503 and to come again in a second, before the body was read."""
    talk.answer(asked, "503 Sorry", b"sorry", "Retry-After: 1")
    talk.until_gone(asked)


def busy_slowly(talk: Conversation, asked: Asked, options: Options) -> None:
    """Say 503 after a while."""
    time.sleep(0.4)
    busy(talk, asked, options)


def again_soon(talk: Conversation, asked: Asked, options: Options) -> None:
    """Say 503 and to come again in a second."""
    busy(talk, asked, {"after": "1"})


def status_500(talk: Conversation, asked: Asked, options: Options) -> None:
    """Say 500."""
    busy(talk, asked, {"status": "500"})


def hints(talk: Conversation, asked: Asked, options: Options) -> None:
    """Send an interim response before the final one."""
    talk.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nX-Gateway-Error: XX\r\n\r\n")
    ok(talk, asked, options)


def trailers(talk: Conversation, asked: Asked, options: Options) -> None:
    """Answer in chunks, with trailers."""
    talk.take(asked)
    talk.send(
        b"HTTP/1.1 200 OK\r\nTrailer: X-Sum, Set-Cookie\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n0\r\nX-Sum: 42\r\nSet-Cookie: a=b\r\n\r\n"
    )


def flood(talk: Conversation, asked: Asked, options: Options) -> None:
    """Send interim responses without end."""
    while True:
        talk.send(b"HTTP/1.1 102 Processing\r\nX-Filler: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n\r\n" * 100)


def huge_head(talk: Conversation, asked: Asked, options: Options) -> None:
    """Send a head without end."""
    talk.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        talk.send(b"X-Filler: " + b"x" * 1000 + b"\r\n")


def _raw(data: bytes, *, keep: bool = False, reset: bool = False) -> Any:
    def lie(talk: Conversation, asked: Asked, options: Options) -> None:
        talk.take(asked)
        talk.send(data)
        talk.keep = keep
        if reset:
            # Let it be read first: a reset throws away what is still on its way.
            time.sleep(0.1)
            talk.reset()

    return lie


_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n"
_UPGRADE = b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"

CUT = {
    "cut_length": _raw(_OK + b"Content-Length: 100\r\n\r\nten bytes!"),
    "cut_length_reset": _raw(_OK + b"Content-Length: 100\r\n\r\nten bytes!", reset=True),
    "cut_chunked": _raw(_CHUNKED + b"\r\na\r\nten bytes!\r\n"),
    "cut_in_chunk": _raw(_CHUNKED + b"\r\n64\r\nten bytes!"),
    "cut_chunked_reset": _raw(_CHUNKED + b"\r\na\r\nten bytes!\r\n", reset=True),
    "cut_before_last_line": _raw(_CHUNKED + b"\r\na\r\nten bytes!\r\n0\r\n"),
    "until_close_reset": _raw(_OK + b"\r\nten bytes!", reset=True),
    "bad_chunk": _raw(_CHUNKED + b"\r\na\r\nten bytes!\r\n0x5\r\nhello\r\n0\r\n\r\n", keep=True),
    "negative_chunk": _raw(_CHUNKED + b"\r\na\r\nten bytes!\r\n-5\r\nhello\r\n0\r\n\r\n", keep=True),
    "long_chunk": _raw(_CHUNKED + b"\r\na\r\nten bytes! and more\r\n0\r\n\r\n", keep=True),
}
"""Bodies that are not whole although the head was fine."""

MALFORMED = {
    "nothing_but_noise": _raw(b"\x16\x03\x01\x02\x00\x01\x00" * 40),
    "http2": _raw(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64"),
    "http09": _raw(b"<html>hello</html>"),
    "cut_head": _raw(_OK + b"Content-Le"),
    "two_lengths": _raw(_OK + b"Content-Length: 2\r\nContent-Length: 5\r\n\r\nhello", keep=True),
    "same_length_twice": _raw(_OK + b"Content-Length: 5, 5\r\n\r\nhello", keep=True),
    "odd_length": _raw(_OK + b"Content-Length: +5\r\n\r\nhello", keep=True),
    "length_and_chunks": _raw(_CHUNKED + b"Content-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n", keep=True),
    "two_codings": _raw(_OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", keep=True),
    "chunks_in_http10": _raw(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    "status_99": _raw(b"HTTP/1.1 99 Low\r\nContent-Length: 5\r\n\r\nhello", keep=True),
    "status_999": _raw(b"HTTP/1.1 999 High\r\nContent-Length: 5\r\n\r\nhello", keep=True),
    "status_words": _raw(b"HTTP/1.1 OK\r\nContent-Length: 5\r\n\r\nhello", keep=True),
    "nul_in_value": _raw(_OK + b"X-A: a\x00b\r\nContent-Length: 5\r\n\r\nhello", keep=True),
    "bare_lf": _raw(b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", keep=True),
    "folded": _raw(_OK + b"X-A: a\r\n b\r\nContent-Length: 5\r\n\r\nhello", keep=True),
    "space_before_colon": _raw(_OK + b"Content-Length : 5\r\n\r\nhello", keep=True),
    "switch": _raw(b"HTTP/1.1 101 Switching Protocols\r\n" + _UPGRADE + b"\x81\x05hello", keep=True),
    "switch_then_ok": _raw(
        b"HTTP/1.1 101 Switching Protocols\r\n" + _UPGRADE + _OK + b"Content-Length: 5\r\n\r\nhello", keep=True
    ),
}
"""Answers that cannot be read, or must not be."""

WHOLE = {
    "until_close": _raw(_OK + b"\r\nten bytes!"),
    "http10": _raw(b"HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\nten bytes!"),
    "extra": _raw(
        _OK + b"Content-Length: 10\r\n\r\nten bytes!HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", keep=True
    ),
    "upgrade_200": _raw(
        _OK + b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 10\r\n\r\nten bytes!", keep=True
    ),
    "close_header": _raw(_OK + b"Connection: close\r\nContent-Length: 10\r\n\r\nten bytes!"),
}
"""Odd answers with a whole body: ``ten bytes!``."""

LIES: dict[str, Any] = {
    lie.__name__: lie
    for lie in (
        *(
            ok,
            echo,
            count,
            pour,
            slow,
            stall,
            deaf,
            stall_body,
            reset,
            close,
            reset_early,
            early,
            busy,
            busy_early,
            busy_slowly,
        ),
        *(again_soon, status_500, hints, trailers, flood, huge_head),
    )
}
LIES |= CUT | MALFORMED | WHOLE


class Backend:
    """
    The listening socket, what was asked, and what is to be done next.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.asked: list[Asked] = []
        self.names: list[str] = []
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.listening.getsockname()[1]
        self.name = str(self.port)
        self.accept(self.listening)

    def next(self) -> str:
        with self.lock:
            return self.names.pop(0) if self.names else "ok"

    def accept(self, listening: socket.socket) -> None:
        def run() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=Conversation(self, connection).run, daemon=True).start()

        threading.Thread(target=run, daemon=True).start()

    def listen(self, *, on: bool) -> None:
        if not on:
            # A plain close would leave the thread in accept, and the port open.
            self.listening.shutdown(socket.SHUT_RDWR)
            self.listening.close()
            return
        self.listening = socket.socket()
        self.listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listening.bind(("127.0.0.1", self.port))
        self.listening.listen(256)
        self.accept(self.listening)

    def order(self, order: dict[str, Any]) -> Any:
        do = order["do"]
        if do == "seen":
            with self.lock:
                return [asked.told() for asked in self.asked]
        if do == "forget":
            with self.lock:
                self.asked.clear()
                self.names.clear()
        elif do == "script":
            with self.lock:
                self.names += order["names"]
        elif do == "listen":
            self.listen(on=order["on"])
        return True


def main() -> None:
    """Run until standard input is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    backend = Backend()
    control = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = control.accept()
        with connection, connection.makefile("rwb") as lines:
            for line in lines:
                lines.write(json.dumps(backend.order(json.loads(line))).encode() + b"\n")
                lines.flush()

    threading.Thread(target=serve, daemon=True).start()
    sys.stdout.write(json.dumps({"port": backend.port, "control": control.getsockname()[1]}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()

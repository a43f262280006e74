"""
A worker's process that does as its first argument says, with the line but without a gateway: ``program.py HOW``.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from typing import Any

import msgspec

from gateway.workers.line import receive_begin

HOW = sys.argv[1]
LINE = socket.socket(fileno=3)
BEGIN = receive_begin(LINE)


def send(*frame: Any) -> None:
    """Send one message."""
    data = msgspec.msgpack.encode(frame)
    LINE.sendall(len(data).to_bytes(4, "big") + data)


def tell(name: str, body: Any = None) -> None:
    """Tell the parent something."""
    send("tell", 0, name, body)


def receive() -> list[Any]:
    """Wait for the next message; end with the line."""
    data = b""
    while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "big"):
        some = LINE.recv(1 if len(data) < 4 else 4 + int.from_bytes(data[:4], "big") - len(data))
        if not some:
            sys.exit(0)
        data += some
    frame: list[Any] = msgspec.msgpack.decode(data[4:])
    return frame


def main() -> None:
    """Be a worker."""
    if HOW == "cannot":
        tell("cannot_start", "the moon is in the way")
        sys.exit(1)
    if HOW == "at once":
        sys.exit(3)
    if HOW == "never":
        time.sleep(60)
    if HOW == "hesitates":
        while receive()[2] != "drain":
            pass
        sys.exit(0)
    taken = BEGIN.text
    prepared = ""
    facts = {"ready": HOW != "unready", "instance": f"i-{os.getpid()}"}
    tell("started", facts | {"text": taken})
    if HOW == "dies":
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
    while True:
        kind, number, name, body = receive()
        if kind == "tell":
            if name == "drain":
                if HOW == "stubborn":
                    continue
                sys.exit(0)
            continue
        if name == "facts":
            send("answer", number, name, facts | {"text": taken})
        elif name == "prepare":
            prepared = body
            send("answer", number, name, ["not this one"] if HOW == "refuses" else [])
        elif name == "take":
            if HOW == "cannot take":
                send("answer", number, name, False)
                continue
            if HOW == "breaks":
                send("said", number, name, "it broke")
                continue
            taken = prepared
            send("answer", number, name, True)
        elif name == "silence":
            continue
        else:
            send("answer", number, name, f"{name} of {BEGIN.number}".encode())


main()

"""
The opening handshake (RFC 6455, section 4.2), of a head that the HTTP channel has read.

The channel has seen to it that there is one Host, that nothing is said twice that must be said once,
and that lines are lines. What is left is what makes the request a WebSocket's.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha1
from typing import Final
from urllib.parse import parse_qsl

from gateway.core.message import RequestHead, values_of
from gateway.core.problems import Problem

__all__ = ["accept_of", "answer", "key_of", "offered", "query_protocol", "request_again", "token_of"]

TOKEN_PREFIX: Final = "bearer."
"""A sub-protocol that begins so is a token: a page can set no header, and this one is in no log."""

_MAGIC: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_PROMPT: Final = ((b"Upgrade", b"websocket"), (b"Connection", b"Upgrade"), (b"Sec-WebSocket-Version", b"13"))
_MOST_OFFERED: Final = 16

_key = re.compile(rb"[A-Za-z0-9+/]{22}==")
_protocol = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def key_of(head: RequestHead) -> bytes:
    """
    Take the client's key.

    Raises:
        Problem: ``upgrade_required`` where no WebSocket is asked for; ``bad_request`` where it is asked for wrongly.
    """
    if head.upgrade != b"websocket":
        raise Problem("upgrade_required", "WebSockets are opened here: Upgrade: websocket.", headers=_PROMPT)
    fields = head.fields
    if fields.get(b"sec-websocket-version") != b"13":
        raise Problem("upgrade_required", "Sec-WebSocket-Version is 13.", headers=_PROMPT)
    key = fields.get(b"sec-websocket-key", b"")
    if _key.fullmatch(key) is None:
        raise Problem("bad_request", "Sec-WebSocket-Key is 16 bytes in base64.")
    return key


def accept_of(key: bytes) -> bytes:
    """
    Answer *key* (RFC 6455, section 4.2.2).
    """
    return b64encode(sha1(key + _MAGIC, usedforsecurity=False).digest())


def offered(head: RequestHead) -> list[str]:
    """
    List the sub-protocols that the client can speak.

    Raises:
        Problem: ``bad_request``, they are no list of tokens, or one is there twice.
    """
    if b"sec-websocket-protocol" not in head.fields:
        return []
    text = b",".join(values_of(head.headers, b"sec-websocket-protocol")).decode("latin-1")
    names = [name.strip(" \t") for name in text.split(",", _MOST_OFFERED)]
    if len(set(names)) != len(names) or not all(_protocol.fullmatch(name) for name in names):
        raise Problem("bad_request", "Sec-WebSocket-Protocol is a list of different tokens, sixteen at most.")
    return names


def token_of(names: Sequence[str]) -> tuple[list[str], bytes]:
    """
    Take the token out of the sub-protocols; empty if there is none.

    Raises:
        Problem: ``credentials_conflict``, there are several.
    """
    tokens = [name for name in names if name.startswith(TOKEN_PREFIX)]
    if len(tokens) > 1:
        raise Problem("credentials_conflict")
    rest = [name for name in names if not name.startswith(TOKEN_PREFIX)]
    return rest, tokens[0][len(TOKEN_PREFIX) :].encode("ascii") if tokens else b""


def query_protocol(query: bytes) -> str:
    """
    Say which encoding the query asks for, as SDKs that cannot name a sub-protocol do; empty if it does not.
    """
    if b"cf_protocol=" not in query and b"format=" not in query:
        return ""
    try:
        asked = dict(parse_qsl(query.decode("ascii"), max_num_fields=32))
    except ValueError:
        return ""
    return asked.get("cf_protocol") or asked.get("format") or ""


def answer(key: bytes, protocol: str, block: bytes) -> bytes:
    """
    Make the 101.

    Args:
        protocol: The sub-protocol chosen; empty for none.
        block: Further header lines.
    """
    chosen = f"Sec-WebSocket-Protocol: {protocol}\r\n".encode("ascii") if protocol else b""
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n%b%b\r\n" % (accept_of(key), chosen, block)
    )


def request_again(fields: Mapping[bytes, bytes], key: bytes, protocol: str) -> bytes:
    """
    Write the request once more, for Autobahn to negotiate extensions: only what it needs for that.
    """
    chosen = f"Sec-WebSocket-Protocol: {protocol}\r\n".encode("ascii") if protocol else b""
    extensions = fields.get(b"sec-websocket-extensions")
    wanted = b"Sec-WebSocket-Extensions: %b\r\n" % extensions if extensions is not None else b""
    return (
        b"GET / HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n%b%b\r\n" % (key, chosen, wanted)
    )

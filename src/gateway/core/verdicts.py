"""
Why a command failed, a subscription ended or a connection was closed: one table.

The numbers are those the Centrifuge SDKs act on. A close code says by its range what a client
does next: 3000 to 3499 and 4000 to 4499 reconnect, 3500 to 3999 and 4500 to 4999 do not. An
unsubscribe code from 2500 on is subscribed again. An error says by *temporary* whether the
same command may succeed later. ``docs/protocol.md`` is checked against this table.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

__all__ = [
    "ClientError",
    "CloseReason",
    "Closing",
    "ErrorCode",
    "Refused",
    "UnsubscribeReason",
    "cause_of",
    "is_trouble",
    "reconnects",
]

FIRST_APPLICATION_CODE = 4000

QUIET_CODES = frozenset((3000, 3001, 3005, 3011, 3503))
"""Of our own closes, those that somebody ordered or that were to come: no sign of trouble."""

CLEAN_CODES = frozenset((1000, 1001, 1005))
"""Of WebSockets (RFC 6455, 7.4.1): with which a client says that it is done."""


class ErrorCode(Enum):
    """
    What a reply can fail with: number, text, whether to try again.
    """

    INTERNAL = (100, "internal server error", True)
    UNAUTHORIZED = (101, "unauthorized", False)
    UNKNOWN_CHANNEL = (102, "unknown channel", False)
    PERMISSION_DENIED = (103, "permission denied", False)
    METHOD_NOT_FOUND = (104, "method not found", False)
    ALREADY_SUBSCRIBED = (105, "already subscribed", False)
    LIMIT_EXCEEDED = (106, "limit exceeded", False)
    BAD_REQUEST = (107, "bad request", False)
    NOT_AVAILABLE = (108, "not available", False)
    TOKEN_EXPIRED = (109, "token expired", False)
    EXPIRED = (110, "expired", False)
    TOO_MANY_REQUESTS = (111, "too many requests", True)
    UNRECOVERABLE_POSITION = (112, "unrecoverable position", False)

    def __init__(self, code: int, text: str, temporary: bool) -> None:
        self.code = code
        self.text = text
        self.temporary = temporary


class ClientError(Exception):
    """
    A command failed; its reply says so.

    Attributes:
        code: 100 to 399 are the gateway's, 400 to 1999 an application's.
        text: For the client's developer; nothing internal.
        temporary: The same command may succeed later.
    """

    def __init__(self, code: int | ErrorCode, text: str = "", *, temporary: bool = False) -> None:
        if isinstance(code, ErrorCode):
            text = text or code.text
            temporary = temporary or code.temporary
            code = code.code
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text
        self.temporary = temporary


class CloseReason(Enum):
    """
    Why the gateway closes a connection: number, text (at most 123 bytes on the wire).
    """

    CLOSED = (3000, "connection closed")
    SHUTDOWN = (3001, "shutdown")
    SERVER_ERROR = (3004, "internal server error")
    EXPIRED = (3005, "connection expired")
    SUBSCRIPTION_EXPIRED = (3006, "subscription expired")
    SLOW = (3008, "slow")
    WRITE_ERROR = (3009, "write error")
    INSUFFICIENT_STATE = (3010, "insufficient state")
    FORCE_RECONNECT = (3011, "force reconnect")
    NO_PONG = (3012, "no pong")
    TOO_MANY_REQUESTS = (3013, "too many requests")
    INVALID_TOKEN = (3500, "invalid token")
    BAD_REQUEST = (3501, "bad request")
    STALE = (3502, "stale")
    FORCE_NO_RECONNECT = (3503, "force disconnect")
    CONNECTION_LIMIT = (3504, "connection limit")
    CHANNEL_LIMIT = (3505, "channel limit")
    INAPPROPRIATE_PROTOCOL = (3506, "inappropriate protocol")
    PERMISSION_DENIED = (3507, "permission denied")
    NOT_AVAILABLE = (3508, "not available")
    TOO_MANY_ERRORS = (3509, "too many errors")

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        self.text = text

    @property
    def closing(self) -> Closing:
        """The same as a value that applications' own codes share."""
        return Closing(self.code, self.text)


class Closing(NamedTuple):
    """A close code and its reason."""

    code: int
    reason: str


class Refused(Exception):
    """
    A command was such that its connection is closed for it.
    """

    def __init__(self, closing: Closing) -> None:
        super().__init__(f"{closing.code} {closing.reason}")
        self.closing = closing


class UnsubscribeReason(Enum):
    """
    Why the gateway ends a subscription: number, text.
    """

    SERVER = (2000, "server unsubscribe")
    INSUFFICIENT_STATE = (2500, "insufficient state")
    EXPIRED = (2501, "subscription expired")

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        self.text = text


def reconnects(code: int) -> bool:
    """
    Whether a client reconnects after a close with *code*; transport codes (below 3000) always do.
    """
    return code < CloseReason.INVALID_TOKEN.code or FIRST_APPLICATION_CODE <= code < FIRST_APPLICATION_CODE + 500


_CAUSES = {reason.code: reason.name.lower() for reason in CloseReason}


def cause_of(code: int, *, abnormal: bool) -> str:
    """
    Say in a word, one of a closed set, why a session ended whose last connection was closed with *code*.
    """
    if code in _CAUSES:
        return _CAUSES[code]
    if code >= CloseReason.CLOSED.code:
        return "disconnected"  # By an application, with a code of its own.
    return "lost" if abnormal else "closed"


def is_trouble(code: int, *, abnormal: bool) -> bool:
    """
    Whether a connection that was closed with *code* ended as it should not.

    Args:
        abnormal: Without a word from the client, or so that it comes back.
    """
    if CloseReason.CLOSED.code <= code < FIRST_APPLICATION_CODE:
        return code not in QUIET_CODES
    return abnormal and code < CloseReason.CLOSED.code

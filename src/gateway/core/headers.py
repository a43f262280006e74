"""
Header hygiene: what of a message's head may go on to the other side.

Both ways everything that belongs to one connection stays behind (RFC 9110, section 7.6.1), with
all that ``Connection`` lists. Towards a backend nothing may pass that the gateway itself
states: who the caller is, where the request came from, which request it is; nor anything by
which a backend could be made to see another method, host or path than the one that was decided
on. The gateway's own headers are added after this, so that no ``Connection: x-user-id`` can
take them away.

Names are compared with every sign that is no letter or digit read as ``-``: servers that hand
headers on as CGI variables (WSGI, PHP) cannot tell ``X_User.Id`` from ``X-User-Id``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from gateway.core.message import Header, RequestHead, ResponseHead, values_of

__all__ = ["RESERVED_PREFIXES", "connection_names", "identity_names", "is_reserved", "request_block"]
__all__ += ["response_block", "tokens_of", "trailer_block"]

RESERVED_PREFIXES: Final = (b"x-user-", b"x-auth-", b"x-gateway-", b"x-forwarded-", b"x-envoy-", b"proxy-")
"""Never taken from a client: identity, the forwarded family, the hop's own."""

_HOP: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
        b"content-length",
        b"alt-svc",
    )
)
_FROM_GATEWAY: Final = frozenset(
    (
        b"host",
        b"expect",
        b"via",
        b"forwarded",
        b"x-request-id",
        b"traceparent",
        b"tracestate",
        b"baggage",
        # Where the request came from, by everybody's name for it.
        b"x-real-ip",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-original-forwarded-for",
        b"client-ip",
        b"true-client-ip",
        b"cf-connecting-ip",
        b"cf-connecting-ipv6",
        b"fastly-client-ip",
        # Frameworks that believe these see another request than the one that was decided on.
        b"x-http-method-override",
        b"x-http-method",
        b"x-method-override",
        b"x-original-method",
        b"x-original-url",
        b"x-original-uri",
        b"x-original-host",
        b"x-rewrite-url",
        b"x-host",
    )
)
# Stated to clients by the gateway alone, so that they can tell it from a backend.
_FROM_EDGE: Final = (b"x-gateway-", b"proxy-")
_EDGE_NAMES: Final = frozenset((b"x-request-id",))
# RFC 9110, section 6.5.1: what changes framing, routing, credentials or content is no trailer.
_NO_TRAILER: Final = frozenset(
    (
        b"age",
        b"authorization",
        b"cache-control",
        b"cookie",
        b"date",
        b"expires",
        b"location",
        b"max-forwards",
        b"pragma",
        b"range",
        b"retry-after",
        b"server",
        b"set-cookie",
        b"vary",
        b"www-authenticate",
    )
)
_NO_TRAILER_PREFIXES: Final = (b"content-", b"if-", b"access-control-", b"accept")

_other_signs = re.compile(rb"[^a-z0-9]").sub
_SETS_REMEMBERED = 64
_NAMES_REMEMBERED = 1024
_LONGEST_NAME = 64  # Bytes; with the two above it bounds the memory a client can fill.


class _Kept(dict[bytes, bool]):
    """Name as received to whether it may pass; decides at first sight, and forgets in time."""

    __slots__ = ("_decide",)

    def __init__(self, decide: Callable[[bytes], bool]) -> None:
        super().__init__()
        self._decide = decide

    def __missing__(self, name: bytes) -> bool:
        kept = self._decide(_other_signs(b"-", name.lower()))
        if len(name) <= _LONGEST_NAME:
            if len(self) >= _NAMES_REMEMBERED:
                self.clear()
            self[name] = kept
        return kept


_request_kept: dict[frozenset[bytes], _Kept] = {}
_response_kept: dict[frozenset[bytes], _Kept] = {}
_trailer_kept: dict[frozenset[bytes], _Kept] = {}
_connections: dict[bytes, frozenset[bytes]] = {}


def identity_names(configured: Iterable[str]) -> frozenset[bytes]:
    """
    Make the *drop* set for the names under which backends are told who calls.

    ``X-User-*``, ``X-Auth-*`` and ``X-Gateway-*`` are always dropped and need not be in it. A
    name that ends in ``*`` stands for all that begin so.
    """
    return frozenset(
        _other_signs(b"-", name.rstrip("*").lower().encode()) + (b"*" if name.endswith("*") else b"")
        for name in configured
    )


def is_reserved(name: bytes, drop: frozenset[bytes]) -> bool:
    """
    Whether a client may not set *name*, however spelled: for trailers, gRPC metadata and the like.
    """
    return not _rules(_request_kept, drop, _passes_to_backend)[name]


def request_block(head: RequestHead, drop: frozenset[bytes]) -> bytes:
    """
    Build the block of *head* that goes to a backend: without framing headers and ``Host``.

    Args:
        drop: Lower-case names to leave out beside the rules above, from ``identity_names``;
            perhaps with ``authorization``.
    """
    memo = head.memo
    if memo is None:
        return _request_block(head, drop)
    block: bytes | None = memo.get(drop)
    if block is None:
        block = memo[drop] = _request_block(head, drop)
    return block


def _request_block(head: RequestHead, drop: frozenset[bytes]) -> bytes:
    kept = _rules(_request_kept, drop, _passes_to_backend)
    fields = head.fields
    if b"connection" in fields:
        listed = connection_names(head)
        if listed:
            block = b"".join(
                [
                    b"%b: %b\r\n" % header
                    for header in head.headers
                    if kept[header[0]] and header[0].lower() not in listed
                ]
            )
        else:
            block = b"".join([b"%b: %b\r\n" % header for header in head.headers if kept[header[0]]])
    else:
        block = b"".join([b"%b: %b\r\n" % header for header in head.headers if kept[header[0]]])
    if b"te" in fields and b"trailers" in tokens_of(values_of(head.headers, b"te")):
        # Alone, as Go's and Envoy's proxies send it: backends that speak gRPC look for it, and
        # "Connection: te" beside it would have to be taken off again by whatever is next.
        block += b"TE: trailers\r\n"
    return block


def response_block(head: ResponseHead, drop: frozenset[bytes] = frozenset()) -> bytes:
    """
    Build the block of *head* that goes to the client: without framing headers.

    Args:
        drop: Lower-case names to leave out beside those of one connection, such as ``server``.
    """
    if head.block is not None and not drop:
        return head.block
    kept = _rules(_response_kept, drop, _passes_to_client)
    if b"connection" in head.fields:
        listed = connection_names(head)
        if listed:
            return b"".join(
                [
                    b"%b: %b\r\n" % header
                    for header in head.headers
                    if kept[header[0]] and header[0].lower() not in listed
                ]
            )
    return b"".join([b"%b: %b\r\n" % header for header in head.headers if kept[header[0]]])


def trailer_block(trailers: list[Header], drop: frozenset[bytes]) -> bytes:
    """
    Build the block of *trailers*, either way: what may neither be a header here nor a trailer at all is left out.
    """
    if not trailers:
        return b""
    kept = _rules(_trailer_kept, drop, _passes_as_trailer)
    return b"".join([b"%b: %b\r\n" % header for header in trailers if kept[header[0]]])


def connection_names(head: RequestHead | ResponseHead) -> frozenset[bytes]:
    """
    Collect what all ``Connection`` lines list, in lower case, without ``close`` and ``keep-alive``.
    """
    if len(head.fields) == len(head.headers):  # No name is repeated.
        lines = head.fields.get(b"connection", b"")
    else:
        lines = b",".join(values_of(head.headers, b"connection"))
    known = _connections.get(lines)
    if known is None:
        known = frozenset(tokens_of([lines])) - {b"close", b"keep-alive"}
        if len(lines) <= _LONGEST_NAME:
            if len(_connections) >= _NAMES_REMEMBERED:
                _connections.clear()
            _connections[lines] = known
    return known


def tokens_of(values: Iterable[bytes]) -> list[bytes]:
    """
    Split comma-separated lists into lower-case tokens, without parameters and empty ones.
    """
    tokens = [item.partition(b";")[0].strip(b" \t").lower() for value in values for item in value.split(b",")]
    return [token for token in tokens if token]


def _rules(
    known: dict[frozenset[bytes], _Kept], drop: frozenset[bytes], passes: Callable[[bytes, frozenset[bytes]], bool]
) -> _Kept:
    kept = known.get(drop)
    if kept is None:
        if len(known) >= _SETS_REMEMBERED:
            known.clear()
        names = drop | {_other_signs(b"-", name) for name in drop if not name.endswith(b"*")}
        kept = known[drop] = _Kept(lambda name: passes(name, names))
    return kept


def _dropped(name: bytes, drop: frozenset[bytes]) -> bool:
    return name in drop or any(name.startswith(entry[:-1]) for entry in drop if entry.endswith(b"*"))


def _passes_to_backend(name: bytes, drop: frozenset[bytes]) -> bool:
    return not (name in _HOP or name in _FROM_GATEWAY or name.startswith(RESERVED_PREFIXES) or _dropped(name, drop))


def _passes_to_client(name: bytes, drop: frozenset[bytes]) -> bool:
    return not (name in _HOP or name in _EDGE_NAMES or name.startswith(_FROM_EDGE) or _dropped(name, drop))


def _passes_as_trailer(name: bytes, drop: frozenset[bytes]) -> bool:
    return name not in _NO_TRAILER and not name.startswith(_NO_TRAILER_PREFIXES) and _passes_to_backend(name, drop)

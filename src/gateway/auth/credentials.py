"""
Where a request carries its token, and how the token is kept from going further.

The name that was configured for a token in a cookie or in the query is the token's alone: it is
taken out of every request that is looked at, also where the route does not take a token there,
so that neither a backend nor a log sees it. The Authorization header is left to the headers' rules.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote_to_bytes

from gateway.auth.reasons import refused
from gateway.config.sections import Auth
from gateway.core.message import RequestHead, values_of
from gateway.core.path import Target
from gateway.core.problems import Problem
from gateway.ports.http import Exchange

__all__ = ["CredentialSource"]

_MISSING: Final = ((b"WWW-Authenticate", b"Bearer"),)


class CredentialSource:
    """
    Takes the credential from a request (``node.filters.TokenSource``).
    """

    __slots__ = ("_cookie", "_query")

    def __init__(self, section: Auth) -> None:
        self._cookie = section.cookie.encode("ascii") if section.cookie else b""
        self._query = section.query.encode("ascii") if section.query else b""

    def __call__(self, exchange: Exchange, places: tuple[str, ...]) -> bytes:
        """
        Take the one token that stands in *places* (``header``, ``cookie``, ``query``).

        Raises:
            Problem: ``credential_missing``; ``credentials_conflict`` for more than one (RFC 6750, section 2).
        """
        memo = exchange.head.memo
        if memo is not None and not self._cookie and not self._query:
            known: bytes | None = memo.get(places)
            if known is None:
                known = memo[places] = self._take(exchange, places)
            return known
        return self._take(exchange, places)

    def _take(self, exchange: Exchange, places: tuple[str, ...]) -> bytes:
        found: list[bytes] = []
        authorization = exchange.head.fields.get(b"authorization")
        if authorization is not None and "header" in places:
            scheme, _, token = authorization.partition(b" ")
            if scheme.lower() == b"bearer":
                found.append(token.strip(b" "))
        if self._cookie or self._query:
            cookies, parameters = self.clean(exchange)
            if "cookie" in places:
                found += cookies
            if "query" in places:
                found += parameters
        if len(found) == 1:
            if not found[0]:
                raise refused("malformed")
            return found[0]
        if found:
            raise Problem("credentials_conflict")
        raise Problem("credential_missing", headers=_MISSING)

    def clean(self, exchange: Exchange) -> tuple[list[bytes], list[bytes]]:
        """
        Take the tokens out of cookies and query; afterwards ``head``, ``target`` and ``query`` are without.

        Returns:
            The tokens from cookies, and those from the query.
        """
        cookies: list[bytes] = []
        parameters: list[bytes] = []
        if self._cookie and b"cookie" in exchange.head.fields:
            cookies = self._from_cookies(exchange)
        if self._query and exchange.query:
            parameters = self._from_query(exchange)
        return cookies, parameters

    def _from_cookies(self, exchange: Exchange) -> list[bytes]:
        head = exchange.head
        pairs = b";".join(values_of(head.headers, b"cookie")).split(b";")
        tokens: list[bytes] = []
        others: list[bytes] = []
        for pair in pairs:
            name, equals, value = pair.strip(b" \t").partition(b"=")
            if equals and name.rstrip(b" \t") == self._cookie:
                tokens.append(value.strip(b" \t"))
            elif pair:
                others.append(pair.strip(b" \t"))
        if tokens:
            headers = [header for header in head.headers if header[0].lower() != b"cookie"]
            fields = dict(head.fields)
            del fields[b"cookie"]
            if others:
                fields[b"cookie"] = b"; ".join(others)
                headers.append((b"Cookie", fields[b"cookie"]))
            exchange.head = _with(head, head.target, headers, fields)
        return tokens

    def _from_query(self, exchange: Exchange) -> list[bytes]:
        tokens: list[bytes] = []
        others: list[bytes] = []
        for pair in exchange.query.split(b"&"):
            name, _, value = pair.partition(b"=")
            if name == self._query or (b"%" in name and unquote_to_bytes(name) == self._query):
                tokens.append(unquote_to_bytes(value) if b"%" in value else value)
            else:
                others.append(pair)
        if tokens:
            head = exchange.head
            target: Target = exchange.target
            exchange.query = query = b"&".join(others)
            path = target.raw.partition(b"?")[0]
            raw = b"%b?%b" % (path, query) if query else path
            exchange.target = Target(target.path, target.segments, query, raw, target.encoded_slash)
            exchange.head = _with(head, raw, head.headers, head.fields)
        return tokens


def _with(
    head: RequestHead, target: bytes, headers: list[tuple[bytes, bytes]], fields: dict[bytes, bytes]
) -> RequestHead:
    return RequestHead(
        head.method,
        target,
        headers,
        fields,
        minor=head.minor,
        body_length=head.body_length,
        keep_alive=head.keep_alive,
        expect_continue=head.expect_continue,
        upgrade=head.upgrade,
    )

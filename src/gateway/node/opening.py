"""
Who may open a real-time connection, and as whom: looked at before a WebSocket's 101, or a stream's 200.

A page's origin must be the gateway's own or allowed; what is no browser sends none. A credential that
is presented here must be good. Without one the client may still bring it in its first message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred

from gateway.config.realtime_sections import WebSocket
from gateway.core.identity import Identity
from gateway.core.origins import Origins
from gateway.core.problems import Problem
from gateway.node.filters import TokenSource
from gateway.ports.clients import Opening
from gateway.ports.http import Exchange
from gateway.ports.identity import Authenticator, CertificateHolders

__all__ = ["Openings"]

_PLACES: Final = frozenset(("header", "cookie", "query"))
_TOLD: Final = (b"accept-language", b"user-agent", b"x-app-version")


class Openings:
    """
    The door of one ``[[websocket]]``.

    Args:
        take: Finds the credential in a request.
        wall: Seconds since the epoch.
        certified: Traces of peers that showed a client certificate are continued.
        certificates: Who holds a client certificate, where the section takes them.
        origins: Pages that may connect; None: those that the section names.
        country: The header in which trusted proxies say the country; empty for none.
    """

    def __init__(
        self,
        section: WebSocket,
        authenticator: Authenticator,
        take: TokenSource,
        wall: Callable[[], float],
        *,
        certified: bool = False,
        country: str = "",
        origins: Origins | None = None,
        certificates: CertificateHolders | None = None,
    ) -> None:
        self.section = section
        self._certified = certified
        self._country = country.lower().encode("ascii")
        self._authenticate = authenticator.authenticate
        self._take = take
        self._wall = wall
        self._places = tuple(place for place in section.credentials if place in _PLACES)
        self._certificates = certificates if "certificate" in section.credentials else None
        self._origins = origins or Origins(section.origins or ())

    def __call__(self, exchange: Exchange, token: bytes = b"") -> Opening | Deferred[Opening]:
        """
        Look at the request.

        Args:
            token: One that was found where only the edge can look (a sub-protocol); empty for none.

        Raises:
            Problem: ``origin_refused``, ``token_invalid``, ``credentials_conflict``, ``keys_unavailable``. The
                Deferred fails with the same.
        """
        self.check_origin(exchange)
        found, by_cookie = self._credential(exchange)
        if token:
            if found:
                raise Problem("credentials_conflict")
            found = token
        if by_cookie and b"origin" not in exchange.head.fields:
            # A cookie is sent by the browser, not by whoever wrote the page: its origin must be known.
            raise Problem("origin_refused", "A token in a cookie needs an Origin.", reason="no_origin")
        if not found:
            certificate = exchange.peer.certificate
            if certificate is None or self._certificates is None:
                return self._opening(exchange, None)
            return self._opening(exchange, self._certificates.holder(certificate, self._wall()))
        identity = self._authenticate(found, self._wall())
        if isinstance(identity, Deferred):
            return identity.addCallback(lambda late: self._opening(exchange, late))
        return self._opening(exchange, identity)

    def check_origin(self, exchange: Exchange) -> None:
        """
        Raise ``Problem("origin_refused")`` for a page that may not connect.
        """
        fields = exchange.head.fields
        origin = fields.get(b"origin")
        if origin is None or self._origins.has(origin):
            return
        origin = origin.lower()
        same = b"%b://%b" % (exchange.client_scheme.encode("ascii"), fields.get(b"host", b"").lower())
        if origin != same and origin != _with_port(same):
            raise Problem("origin_refused", reason="origin")

    def _credential(self, exchange: Exchange) -> tuple[bytes, bool]:
        fields = exchange.head.fields
        if not self._places:
            self._take.clean(exchange)
            return b"", False
        if b"authorization" not in fields and b"cookie" not in fields and not exchange.query:
            return b"", False
        try:
            token = self._take(exchange, self._places)
        except Problem as problem:
            if problem.kind.code == "credential_missing":
                return b"", False
            raise
        return token, b"cookie" in fields and b"authorization" not in fields and "cookie" in self._places

    def _opening(self, exchange: Exchange, identity: Identity | None) -> Opening:
        fields = exchange.head.fields
        peer = exchange.peer
        return Opening(
            exchange.client_host,
            self.section,
            user_agent=fields.get(b"user-agent", b"").decode("latin-1")[:512],
            origin=fields.get(b"origin", b"").decode("latin-1")[:256],
            request_id=exchange.request_id,
            trace=exchange.trace,
            # A trusted proxy vouches for the headers that it writes, not for the frames that it passes on.
            believed=(exchange.trusted and exchange.client_host == peer.host)
            or (self._certified and peer.certificate_subject is not None),
            identity=identity,
            country=_country(fields.get(self._country, b"")) if self._country and exchange.trusted else "",
            headers={name.decode("ascii"): fields[name].decode("latin-1")[:512] for name in _TOLD if name in fields},
        )


def _country(said: bytes) -> str:
    """A country's two letters (ISO 3166-1), or nothing."""
    said = said.strip()
    return said.decode("ascii").upper() if len(said) == 2 and said.isalpha() else ""  # noqa: PLR2004


def _with_port(origin: bytes) -> bytes:
    """The same origin as browsers write it: without the scheme's own port."""
    for scheme, port in ((b"http://", b":80"), (b"https://", b":443")):
        if origin.startswith(scheme):
            return origin.removesuffix(port)
    return origin

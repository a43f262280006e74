"""
Who may ask the admin port, decided before any resource is looked at.

A browser on an operator's machine can be made to send requests to loopback by any page it
shows; so the ``Host`` must be a name of ours (DNS rebinding), a cross-site request is refused, and a
key is only taken from a header that a page cannot set without being asked (never from a cookie or
the query).
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from urllib.parse import urlsplit

from twisted.web.http import Request

from gateway.config.sections import AdminKey
from gateway.core.problems import Problem

__all__ = ["Guard"]

SHOWN_TO_ALL = frozenset((b"/metrics", b"/health", b"/livez", b"/ready", b"/readyz"))
"""Paths that need no key: what a load balancer, an orchestrator or Prometheus asks."""

_SAME = frozenset(("same-origin", "none"))


class Guard:
    """
    The rules of one admin port.

    Args:
        hosts: Names the port may be called by, without a port.
    """

    def __init__(self, hosts: Sequence[str], keys: Sequence[AdminKey]) -> None:
        self._hosts = frozenset(host.lower() for host in hosts)
        self._keys = [(key, key.secret.reveal().encode("utf-8")) for key in keys]

    def admit(self, request: Request, scope: str) -> str:
        """
        Let *request* pass and return the name of the key it carries, empty where none is needed.

        Args:
            scope: What the key must be allowed.

        Raises:
            Problem: ``bad_host``, ``forbidden`` (cross-site, scope), ``admin_key_missing``.
        """
        hosts = request.requestHeaders.getRawHeaders(b"host") or []
        if len(hosts) != 1 or not self._ours(hosts[0].decode("latin-1")):
            raise Problem("bad_host", "Call the admin port by one of its names (listen.admin_hosts).")
        self._same_site(request)
        if request.path in SHOWN_TO_ALL:
            return ""
        key = self._key(request)
        if key is None:
            raise Problem(
                "admin_key_missing",
                "Send a key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'.",
                headers=((b"WWW-Authenticate", b'Bearer realm="admin"'),),
            )
        if scope not in key.scopes and "*" not in key.scopes:
            raise Problem("forbidden", f"The key lacks the scope {scope!r}.", reason=f"scope {scope} of key {key.name}")
        return key.name

    def _ours(self, host: str) -> bool:
        name = host.lower()
        if name in self._hosts:
            return True
        name, colon, port = name.rpartition(":")
        return bool(colon) and port.isdigit() and name in self._hosts

    def _same_site(self, request: Request) -> None:
        site = request.getHeader(b"sec-fetch-site")
        if site is not None and site.decode("latin-1") not in _SAME:
            raise Problem("forbidden", "Requests from other sites are refused.", reason="cross_site")
        origin = request.getHeader(b"origin")
        if origin is not None:
            authority = urlsplit(origin.decode("latin-1")).netloc
            own = (request.getHeader(b"host") or b"").decode("latin-1")
            if not authority or authority.lower() != own.lower():
                raise Problem("forbidden", "Requests from other sites are refused.", reason="cross_origin")

    def _key(self, request: Request) -> AdminKey | None:
        presented = [value.strip() for value in request.requestHeaders.getRawHeaders(b"x-api-key") or []]
        for value in request.requestHeaders.getRawHeaders(b"authorization") or []:
            scheme, _, token = value.partition(b" ")
            if scheme.lower() == b"bearer":
                presented.append(token.strip())
        if len(presented) != 1:
            return None
        found = None
        for key, secret in self._keys:
            # Every key is compared, in the same time whichever it is.
            if hmac.compare_digest(presented[0], secret):
                found = key
        return found

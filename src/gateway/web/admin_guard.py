"""
Who may ask the admin port, decided before anything else is looked at.

A browser on an operator's machine can be made to send requests to loopback by any page it
shows; so the ``Host`` must be a name of ours (DNS rebinding), a cross-site request is refused, and a
key is only taken from a header that a page cannot set without being asked (never from a cookie or
the query).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.config.sections import AdminKey
from gateway.core.message import RequestHead, values_of
from gateway.core.problems import Problem
from gateway.node.api_keys import ApiKeys, Key, bearer

__all__ = ["Guard"]

_OWN_SITES: Final = frozenset((b"same-origin", b"none"))
_ORIGINS: Final = ("http://", "https://")


class Guard:
    """
    The rules of one port.

    Args:
        hosts: Names it may be called by, without a port; None: by any.
        keys: What opens it.
    """

    __slots__ = ("_hosts", "_keys")

    def __init__(self, hosts: Sequence[str] | None, keys: Sequence[AdminKey]) -> None:
        self._hosts = None if hosts is None else frozenset(host.lower() for host in hosts)
        self._keys = ApiKeys(keys)

    def admit(self, head: RequestHead, scope: str | None) -> Key:
        """
        Let *head* pass and return the key it carries, one without a name where none is needed.

        Args:
            scope: What the key must be allowed; empty where any key will do, None where none is needed.

        Raises:
            Problem: ``bad_host``, ``forbidden`` (cross-site, or the key lacks the scope),
                ``admin_key_missing`` (none, several, or an unknown one).
        """
        host = head.fields.get(b"host", b"").decode("latin-1").lower()
        if self._hosts is not None and host not in self._hosts and _without_port(host) not in self._hosts:
            raise Problem("bad_host", "Call this port by one of its names (listen.admin_hosts).")
        self._refuse_other_sites(head, host)
        if scope is None:
            return Key()
        key = self._key(head)
        if not key.allows(scope):
            raise Problem("forbidden", f"The key lacks the scope {scope!r}.", reason=f"scope {scope} of key {key.name}")
        return key

    def _refuse_other_sites(self, head: RequestHead, host: str) -> None:
        fields = head.fields
        if b"sec-fetch-site" in fields and not _OWN_SITES.issuperset(values_of(head.headers, b"sec-fetch-site")):
            raise Problem("forbidden", "Requests from other sites are refused.", reason="cross_site")
        if b"origin" in fields:
            for origin in values_of(head.headers, b"origin"):
                if origin.decode("latin-1").lower() not in [scheme + host for scheme in _ORIGINS]:
                    raise Problem("forbidden", "Requests from other sites are refused.", reason="cross_origin")

    def _key(self, head: RequestHead) -> Key:
        presented = values_of(head.headers, b"x-api-key")
        tokens = (bearer(value) for value in values_of(head.headers, b"authorization"))
        presented += [token for token in tokens if token is not None]
        if not presented:
            raise _unknown("none")
        if len(presented) > 1:
            raise _unknown("several")
        found = self._keys.find(presented[0])
        if found is None:
            raise _unknown("unknown")
        return found


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _unknown(which: str) -> Problem:
    return Problem(
        "admin_key_missing",
        "Send one key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'.",
        headers=((b"WWW-Authenticate", b'Bearer realm="admin"'),),
        reason=f"admin_key_{which}",
    )

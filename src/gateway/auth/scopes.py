"""
What a caller may do, as far as its token says.
"""

from __future__ import annotations

from gateway.core.identity import Identity
from gateway.core.problems import Problem

__all__ = ["check_scopes"]


def check_scopes(identity: Identity, wanted: tuple[str, ...]) -> None:
    """
    Let pass who has every scope of *wanted*.

    Raises:
        Problem: ``scope_missing``, a 403 that names the scopes (RFC 6750, section 3.1).
    """
    if not identity.scopes.issuperset(wanted):
        named = b" ".join(scope.encode("ascii", "replace") for scope in wanted)
        raise Problem(
            "scope_missing",
            headers=((b"WWW-Authenticate", b'Bearer error="insufficient_scope", scope="%b"' % named),),
        )

"""
Client certificates as identities: what the handshake has verified, in the words of a token.

Rules, identity headers and channels then see a certificate's holder as they see a token's: ``claims.sub``,
``claims.iss``, ``claims.certificate``. That the authority signed it is the TLS layer's affair; here it is asked
whether it is still good, because a connection may outlive it, and whether it was revoked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from gateway.auth.reasons import refused
from gateway.config.sections import CertificateIdentity
from gateway.core.certificate import ClientCertificate
from gateway.core.identity import Identity

__all__ = ["PREFIX", "Certificates"]

PREFIX: Final = "certificate:"
"""Before the subject, unless ``plain``: nobody's certificate makes them the user of a token."""


class Certificates:
    """
    Turns verified certificates into identities (``ports.identity.CertificateHolders``).

    Args:
        is_revoked: Of ``ports.identity.Revocations``: a certificate is a token whose id is its SHA-256.
    """

    __slots__ = ("_is_revoked", "_issuer", "_prefix", "_subject")

    def __init__(self, section: CertificateIdentity, is_revoked: Callable[[Identity], bool]) -> None:
        self._subject = section.subject
        self._prefix = "" if section.plain else PREFIX
        self._issuer = section.issuer
        self._is_revoked = is_revoked

    def holder(self, certificate: ClientCertificate, now: float) -> Identity:
        """
        Say who holds *certificate*; *now* in seconds since the epoch.

        Raises:
            Problem: ``token_invalid``: it is over, was revoked, or does not say who its holder is.
        """
        if not certificate.begins_at <= now < certificate.ends_at:
            raise refused("expired" if now >= certificate.ends_at else "not_yet_valid")
        named = self._named(certificate)
        if not named:
            raise refused("certificate_subject")
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "sub": self._prefix + named,
            "iat": int(certificate.begins_at),
            "exp": int(certificate.ends_at),
            "jti": certificate.sha256,
            "certificate": {
                "subject": certificate.subject,
                "common_name": certificate.common_name,
                "dns": list(certificate.dns),
                "uris": list(certificate.uris),
                "emails": list(certificate.emails),
                "serial": certificate.serial,
                "sha256": certificate.sha256,
            },
        }
        identity = Identity(
            claims["sub"],
            self._issuer,
            certificate.ends_at,
            issued_at=certificate.begins_at,
            token_id=certificate.sha256,
            claims=claims,
        )
        if self._is_revoked(identity):
            raise refused("revoked")
        return identity

    def _named(self, certificate: ClientCertificate) -> str:
        if self._subject == "common_name":
            return certificate.common_name
        if self._subject == "subject":
            return certificate.subject
        names = {"dns": certificate.dns, "uri": certificate.uris, "email": certificate.emails}[self._subject]
        # Of several none is the one that was meant.
        return names[0] if len(names) == 1 else ""

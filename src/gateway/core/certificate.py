"""
What a client certificate says of its holder, once the handshake has verified it.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ClientCertificate"]


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """
    Attributes:
        subject: The whole name (RFC 4514).
        common_name: The one in it; empty if there is none, or several.
        dns: Alternative names that are host names.
        uris: Those that are URIs, such as SPIFFE ids.
        emails: Those that are mail addresses.
        serial: In hexadecimal.
        sha256: Of the certificate, in hexadecimal; by it one certificate can be revoked.
        begins_at: Seconds since the epoch.
        ends_at: Likewise.
    """

    subject: str
    common_name: str
    dns: tuple[str, ...]
    uris: tuple[str, ...]
    emails: tuple[str, ...]
    serial: str
    sha256: str
    begins_at: float
    ends_at: float

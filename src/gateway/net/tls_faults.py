"""
Why a TLS handshake failed, in a few words for the log.
"""

from __future__ import annotations

from OpenSSL.SSL import Error
from service_identity import VerificationError

__all__ = ["tls_fault"]


def tls_fault(error: BaseException | None) -> str:
    """
    Say why a handshake failed; *error* is what ``connectionLost`` was told.
    """
    if isinstance(error, VerificationError):
        return "the certificate is for another name"
    if isinstance(error, Error) and error.args and error.args[0]:
        first = error.args[0][0] if isinstance(error.args[0], list) else error.args
        return f"TLS: {first[-1]}"
    return f"TLS: {type(error).__name__}"

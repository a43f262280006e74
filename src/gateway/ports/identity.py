"""
The seams of identity: who verifies a credential, and who remembers what was revoked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from twisted.internet.defer import Deferred

from gateway.core.certificate import ClientCertificate
from gateway.core.identity import Identity, Revocation

__all__ = ["Authenticator", "CertificateHolders", "KnownRevocations", "Revocations"]


class Authenticator(Protocol):
    """
    Turns a credential into an identity.
    """

    def authenticate(self, token: bytes, now: float) -> Identity | Deferred[Identity]:
        """
        Verify *token*.

        The identity comes at once when the token was verified before or its issuer's keys are
        here; a Deferred only when keys must be fetched first. Revocation is checked each time.

        Args:
            token: As presented, without the scheme.
            now: Seconds since the epoch.

        Raises:
            Problem: ``token_invalid`` (its ``reason`` is a word of the closed list in
                ``auth.reasons``), or ``keys_unavailable`` when the issuer's keys were never
                to be had. A Deferred fails with the same.
        """

    def ready(self) -> bool:
        """Whether every issuer has keys."""


class CertificateHolders(Protocol):
    """
    Turns a client certificate that the handshake has verified into an identity.
    """

    def holder(self, certificate: ClientCertificate, now: float) -> Identity:
        """
        Say who holds *certificate*; *now* in seconds since the epoch.

        Raises:
            Problem: ``token_invalid``: it is over, was revoked, or does not say who its holder is.
        """


class KnownRevocations(Protocol):
    """
    What was revoked before its time, as far as this instance was told. Asked for every request: nothing here blocks.
    """

    def add(self, revocation: Revocation) -> None:
        """Revoke here; of two of the same token or subject the further-reaching holds."""

    def is_revoked(self, identity: Identity) -> bool:
        """Whether *identity* was revoked."""

    def watch(self, told: Callable[[Revocation], None]) -> None:
        """Have *told* called with each revocation as soon as it holds here, whoever ordered it."""

    def __iter__(self) -> Iterator[Revocation]:
        """Everything that is known, perhaps with some that have ended."""


class Revocations(Protocol):
    """
    What was revoked before its time: what this instance alone was told, and what all know.

    Open when the store is away: what is known here goes on to hold.
    """

    def add(self, revocation: Revocation) -> None:
        """Revoke here alone."""

    async def revoke(self, revocation: Revocation) -> bool:
        """
        Revoke here at once and on every instance within a second, also after restarts.

        Returns:
            False if the store is away: it holds here, and everywhere once the store is back.
        """

    def is_revoked(self, identity: Identity) -> bool:
        """Whether *identity* was revoked. Called for every request; does not block."""

    def watch(self, told: Callable[[Revocation], None]) -> None:
        """Have *told* called with each revocation as soon as it holds here, whoever ordered it."""

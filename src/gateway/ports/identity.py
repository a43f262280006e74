"""
The seams of identity: who verifies a credential, and who remembers what was revoked.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred

from gateway.core.identity import Identity

__all__ = ["Authenticator", "Revocations"]


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


class Revocations(Protocol):
    """
    What was revoked before its time.
    """

    def add_token(self, token_id: str, until: float) -> None:
        """Revoke one token by its ``jti`` (or ``sid``) until *until*, epoch seconds, when it would have expired."""

    def add_subject(self, subject: str, issued_before: float, until: float) -> None:
        """Revoke all that *subject* was issued before *issued_before*; forgotten at *until*. Epoch seconds."""

    def is_revoked(self, identity: Identity) -> bool:
        """Whether *identity* was revoked. Called for every request; must not block."""

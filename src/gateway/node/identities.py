"""
Who real-time clients are: tokens that come in commands, and what becomes of them while they last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from gateway.core import commands as c
from gateway.core.identity import Identity
from gateway.core.problems import Problem
from gateway.core.verdicts import ClientError, CloseReason, ErrorCode, Refused
from gateway.ports.identity import Authenticator, Revocations

if TYPE_CHECKING:
    from gateway.node.client import Client

__all__ = ["Identities"]


class Identities:
    """
    Verifies what clients present.

    Args:
        wall: Seconds since the epoch.
        refused: Counts a credential that was refused, by reason.
        distrusted: Told the address of whoever presented one that is not acceptable.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        revocations: Revocations,
        wall: Callable[[], float],
        refused: Callable[[str], None],
        distrusted: Callable[[str], None],
    ) -> None:
        self._authenticate = authenticator.authenticate
        self._revoked = revocations.is_revoked
        self._wall = wall
        self.refused = refused
        self._distrusted = distrusted

    async def verify(self, token: str) -> Identity:
        """
        Verify a token that a client sent.

        Raises:
            ClientError: ``TOKEN_EXPIRED``, ``UNAUTHORIZED``, or a temporary failure while there are no keys.
        """
        try:
            found = self._authenticate(token.encode("utf-8", "replace"), self._wall())
            return await found if isinstance(found, Deferred) else found
        except Problem as problem:
            self.refused(problem.reason)
            if problem.reason == "expired":
                raise ClientError(ErrorCode.TOKEN_EXPIRED) from problem
            if problem.kind.code == "keys_unavailable":
                raise ClientError(ErrorCode.INTERNAL, "tokens cannot be verified now", temporary=True) from problem
            raise ClientError(ErrorCode.UNAUTHORIZED) from problem

    async def verify_or_close(self, token: str, address: str) -> Identity:
        """
        The same, where a token that is not acceptable closes the connection, and counts against *address*.

        Raises:
            ClientError: ``TOKEN_EXPIRED`` (the SDKs then get a newer one), or a temporary failure.
            Refused: with ``INVALID_TOKEN``.
        """
        try:
            return await self.verify(token)
        except ClientError as error:
            if error.code == ErrorCode.UNAUTHORIZED.code:
                self._distrusted(address)
                raise Refused(CloseReason.INVALID_TOKEN.closing) from error
            raise

    def is_revoked(self, identity: Identity) -> bool:
        """
        Whether *identity* was revoked since it was verified.
        """
        return self._revoked(identity)

    def holds(self, identity: Identity) -> bool:
        """
        Whether *identity* is as good as when it was verified.
        """
        return identity.expires_at > self._wall() and not self._revoked(identity)

    async def refresh(self, client: Client, token: str) -> c.Refreshed:
        """
        Let a client go on with a newer token of the same subject.

        Raises:
            ClientError: the token cannot be taken.
            Refused: it is somebody else's, or not acceptable.
        """
        if client.identity is None:
            raise ClientError(ErrorCode.BAD_REQUEST, "an anonymous connection has nothing to refresh")
        identity = await self.verify_or_close(token, client.opening.address)
        if identity.subject != client.user or identity.issuer != client.identity.issuer:
            raise Refused(CloseReason.INVALID_TOKEN.closing)
        client.node.holders.drop(client)
        client.identified(identity, identity.claims)
        client.node.holders.put(client)
        return c.Refreshed(
            client=client.id,
            version=client.node.version,
            expires=True,
            ttl_s=max(1, int(identity.expires_at - self._wall())),
        )

"""
Tokens verified: a JWT comes in, an identity or a refusal goes out.

PyJWT's algorithms verify the signature; everything around is stricter than PyJWT and stands in
``compact`` (the form), ``claims`` (the meaning) and ``keyset`` (which key may verify what). What is
cheap and needs no key is checked first, so that a token that cannot be good costs neither a
verification nor a fetch of keys.

A verified token is remembered by its own bytes, not by a digest: the identity holds them anyway,
looking bytes up costs less than SHA-256 of them, and as Python's hash of bytes is keyed
(SipHash) neither collisions nor the time of a look-up can be steered from outside. Since only one
spelling of a token is accepted, one token is one entry.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from twisted.internet.defer import Deferred

from gateway.auth.claims import check_header, checked
from gateway.auth.compact import Compact, read
from gateway.auth.keys import KeyRing
from gateway.auth.keyset import Key
from gateway.auth.reasons import refused
from gateway.auth.sources import KeySource
from gateway.config.sections import Auth, Issuer
from gateway.core.identity import Identity
from gateway.ports.identity import Revocations

__all__ = ["JwtAuthenticator"]


BYTES_PER_TOKEN = 2048
"""So many bytes of tokens are remembered for each of ``cache_size``, so that long ones do not fill the memory."""


class JwtAuthenticator:
    """
    The ``ports.identity.Authenticator`` for JSON Web Tokens.
    """

    __slots__ = ("_bytes", "_cache", "_get", "_is_revoked", "_keys", "_max_bytes", "_section", "_size")

    def __init__(self, section: Auth, keys: KeyRing, revocations: Revocations) -> None:
        self._keys = keys
        self._section = section
        self._max_bytes = section.max_token_bytes
        self._size = section.cache_size
        self._cache: dict[bytes, tuple[float, Identity]] = {}
        self._get = self._cache.get
        self._bytes = 0
        self._is_revoked = revocations.is_revoked
        keys.watch(self._forget)

    def configure(self, section: Auth) -> None:
        """
        Go by another configuration; if it differs, what was verified under the old one is verified anew.
        """
        if section != self._section:
            self._section = section
            self._max_bytes = section.max_token_bytes
            self._size = section.cache_size
            self._cache.clear()
            self._bytes = 0

    @property
    def cached(self) -> int:
        """How many verified tokens are remembered."""
        return len(self._cache)

    def ready(self) -> bool:
        """Whether every issuer has keys."""
        return self._keys.ready()

    def authenticate(self, token: bytes, now: float) -> Identity | Deferred[Identity]:
        """
        Verify *token* (``ports.identity.Authenticator.authenticate``).
        """
        known = self._get(token)
        if known is not None:
            until, identity = known
            if now < until:
                if self._is_revoked(identity):
                    raise refused("revoked")
                return identity
            self._drop([token])
        return self._verify(token, now)

    def _verify(self, token: bytes, now: float) -> Identity | Deferred[Identity]:
        compact = read(token, self._max_bytes)
        named = compact.claims.get("iss")
        source = self._keys.sources.get(named) if type(named) is str else None
        if source is None:
            if named is None:
                raise refused("claim_missing")
            raise refused("issuer_unknown" if type(named) is str else "claim_type")
        algorithm, kid = check_header(compact.header, source.issuer)
        identity = checked(compact.claims, source.issuer, token, now)
        candidates = source.keys.candidates(kid, algorithm) if source.keys is not None else ()
        if _verified(compact, algorithm, candidates):
            return self._taken(identity, source.issuer, now)
        # The very key it names did not sign it. Where nothing names a key, there may be a new one.
        if kid is not None and any(key.kid == kid for key in candidates):
            raise refused("signature")
        waiting = source.fresher()
        if waiting is None:
            if source.keys is None:
                raise source.unavailable()
            raise refused("signature" if candidates else "key_unknown")
        return waiting.addCallback(lambda _: self._again(compact, algorithm, kid, identity, source, now))

    def _again(
        self, compact: Compact, algorithm: str, kid: str | None, identity: Identity, source: KeySource, now: float
    ) -> Identity:
        if source.keys is None:
            raise source.unavailable()
        candidates = source.keys.candidates(kid, algorithm)
        if not _verified(compact, algorithm, candidates):
            raise refused("signature" if candidates else "key_unknown")
        return self._taken(identity, source.issuer, now)

    def _taken(self, identity: Identity, issuer: Issuer, now: float) -> Identity:
        if self._is_revoked(identity):
            raise refused("revoked")
        self._remember(identity, identity.expires_at + issuer.leeway_s, now)
        return identity

    def _remember(self, identity: Identity, until: float, now: float) -> None:
        cache, size, token = self._cache, self._size, identity.credential
        if not size or token in cache:  # Several may have waited for the same keys with one token.
            return
        if len(cache) >= size or self._bytes + len(token) > size * BYTES_PER_TOKEN:
            self._drop([token for token, entry in cache.items() if entry[0] <= now])
            # The oldest eighth at once, so that a full cache is not searched for each new token.
            while cache and (len(cache) > size - size // 8 - 1 or self._bytes > size * BYTES_PER_TOKEN * 7 // 8):
                self._drop(list(islice(cache, max(1, len(cache) // 8))))
        cache[token] = (until, identity)
        self._bytes += len(token)

    def _drop(self, tokens: list[bytes]) -> None:
        for token in tokens:
            del self._cache[token]
            self._bytes -= len(token)

    def _forget(self, issuer: str) -> None:
        """Keys of *issuer* are gone, and with them what they verified."""
        self._drop([token for token, (_, identity) in self._cache.items() if identity.issuer == issuer])


def _verified(compact: Compact, algorithm: str, keys: Iterable[Key]) -> bool:
    return any(key.verifies(algorithm, compact.signed, compact.signature) for key in keys)

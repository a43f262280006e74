"""
Verification keys of one issuer, each bound to the algorithms it may verify.

A set is immutable and replaced as a whole. What a remote set must not bring is left out:
secrets, private keys, keys for encryption, keys too weak or too large to be used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from jwt.algorithms import Algorithm, get_default_algorithms

from gateway.auth.compact import parse_object

__all__ = ["MAX_CANDIDATES", "Key", "KeySet", "from_jwks", "from_pem", "from_secret"]

MAX_CANDIDATES: Final = 4
"""Keys tried when a token does not say which; more would let one token cost many verifications."""

MAX_KEYS: Final = 64
MAX_KID: Final = 256

_RSA_BITS: Final = range(2048, 8193)
_RSA_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES: Final = {"secp256r1": ("ES256",), "secp384r1": ("ES384",), "secp521r1": ("ES512",)}
_PRIVATE: Final = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth", "k"))

_algorithms: Final[dict[str, Algorithm]] = get_default_algorithms()


class Key(NamedTuple):
    """
    One key.

    Attributes:
        kid: Its id; None when it has none and stands for any.
        algorithms: What it verifies.
        material: As PyJWT's algorithms take it.
        thumbprint: Digest of the key itself, to see whether it is still there after a change.
    """

    kid: str | None
    algorithms: frozenset[str]
    material: Any
    thumbprint: bytes

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """
        Whether *signature* over *signed* was made with this key by *algorithm*.
        """
        # The algorithm comes from the token; the key decides whether it may be used with it.
        return algorithm in self.algorithms and _algorithms[algorithm].verify(signed, self.material, signature)


class KeySet:
    """
    The keys of one issuer that fit its algorithms. Never changed.
    """

    __slots__ = ("_by_kid", "_nameless", "keys")

    def __init__(self, keys: Iterable[Key]) -> None:
        self.keys = tuple(keys)
        self._by_kid: dict[str, tuple[Key, ...]] = {}
        self._nameless = tuple(key for key in self.keys if key.kid is None)
        for key in self.keys:
            if key.kid is not None:
                self._by_kid[key.kid] = (*self._by_kid.get(key.kid, ()), key)

    def candidates(self, kid: str | None, algorithm: str) -> list[Key]:
        """
        Find the keys that may have signed a token with this header.

        Without *kid* that is every fitting key, unless they are more than ``MAX_CANDIDATES``.
        """
        named = self.keys if kid is None else (*self._by_kid.get(kid, ()), *self._nameless)
        found = [key for key in named if algorithm in key.algorithms]
        return found if len(found) <= MAX_CANDIDATES else []

    def holds(self, other: KeySet) -> bool:
        """
        Whether every key of *other* is in this set, so that what they verified stands.
        """
        mine = {(key.kid, key.algorithms, key.thumbprint) for key in self.keys}
        return all((key.kid, key.algorithms, key.thumbprint) in mine for key in other.keys)


def from_secret(secret: str, allowed: tuple[str, ...]) -> KeySet:
    """
    Make the set of one shared secret.

    Raises:
        ValueError: it fits no algorithm of *allowed*, or looks like a key that is no secret.
    """
    fitting = frozenset(name for name in allowed if name in ("HS256", "HS384", "HS512"))
    if not fitting:
        raise ValueError("a secret verifies HS256, HS384 and HS512 only")
    try:
        material = _algorithms["HS256"].prepare_key(secret.encode())
    except jwt.InvalidKeyError:
        raise ValueError("the secret is a PEM or SSH key, which is no secret") from None
    return KeySet([Key(None, fitting, material, hashlib.sha256(material).digest())])


def from_pem(pem: bytes, allowed: tuple[str, ...]) -> KeySet:
    """
    Make the set of one public key in PEM.

    Raises:
        ValueError: it is none, is too weak, or fits no algorithm of *allowed*.
    """
    if b"PRIVATE KEY" in pem:
        raise ValueError("it holds a private key; the gateway needs, and should have, the public one only")
    try:
        material = load_pem_public_key(pem)
    except (ValueError, TypeError):
        raise ValueError("it holds no public key in PEM") from None
    key = _bound(None, material, allowed)
    if key is None:
        raise ValueError(f"its key is too weak, too large, or not one for {', '.join(allowed)}")
    return KeySet([key])


def from_jwks(document: bytes, allowed: tuple[str, ...]) -> KeySet:
    """
    Make the set of a JWK Set (RFC 7517), of the keys in it that can be used.

    Raises:
        ValueError: it is no JWK Set, or no key in it can be used with *allowed*.
    """
    try:
        keys = parse_object(document).get("keys")
    except (ValueError, RecursionError):
        raise ValueError("it is not a JSON object, or one with duplicate members") from None
    if not isinstance(keys, list):
        raise ValueError("it has no array `keys`")  # noqa: TRY004
    if len(keys) > MAX_KEYS:
        raise ValueError(f"it has more than {MAX_KEYS} keys")
    usable = [key for key in (_from_jwk(entry, allowed) for entry in keys) if key is not None]
    if not usable:
        raise ValueError(f"none of its {len(keys)} keys is a public signing key for {', '.join(allowed)}")
    return KeySet(usable)


def _from_jwk(entry: Any, allowed: tuple[str, ...]) -> Key | None:
    if not isinstance(entry, dict) or entry.get("kty") not in ("RSA", "EC", "OKP") or not _PRIVATE.isdisjoint(entry):
        return None
    if entry.get("use", "sig") != "sig":
        return None
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    kid = entry.get("kid")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= MAX_KID):
        return None
    named = entry.get("alg")
    if named is not None:
        allowed = tuple(name for name in allowed if name == named)
    family = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}[entry["kty"]]
    if entry["kty"] == "EC":
        family = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}.get(str(entry.get("crv")), "")
    try:
        material = _algorithms[family].from_jwk(entry)
    except Exception:  # From strange members the libraries raise whatever they like; the key is not used.
        return None
    return _bound(kid, material, allowed)


def _bound(kid: str | None, material: Any, allowed: tuple[str, ...]) -> Key | None:
    """The key, bound to those of *allowed* that are for its type; None if there is none."""
    fitting: tuple[str, ...] = ()
    if isinstance(material, RSAPublicKey) and material.key_size in _RSA_BITS:
        fitting = _RSA_ALGORITHMS
    elif isinstance(material, EllipticCurvePublicKey):
        fitting = _CURVES.get(material.curve.name, ())
    elif isinstance(material, Ed25519PublicKey):
        fitting = ("EdDSA",)
    bound = frozenset(fitting).intersection(allowed)
    if not bound:
        return None
    encoded = material.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Key(kid, bound, material, hashlib.sha256(encoded).digest())

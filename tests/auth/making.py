"""
Keys, tokens in every spelling, and authenticators to judge them.
"""

import json
from base64 import urlsafe_b64encode
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwt.algorithms import get_default_algorithms
from twisted.internet.task import Clock

from gateway.auth.keys import KeyRing
from gateway.auth.tokens import JwtAuthenticator
from gateway.config.sections import Auth, Issuer, Secret
from gateway.core.identity import Identity
from gateway.memory.revocations import MemoryRevocations

NOW = 1_700_000_000.0
HMAC_ISSUER = "https://issuer.example"
RSA_ISSUER = "https://rsa.example"
SECRET = "a secret of more than sixty-four bytes, so that it does for HS512 as well"
CLAIMS: dict[str, Any] = {"iss": HMAC_ISSUER, "aud": "gateway", "sub": "alice", "exp": NOW + 60, "iat": NOW}

_algorithms = get_default_algorithms()


@cache
def key(kind: str) -> Any:
    """A private key: ``rsa``, ``rsa-other``, ``rsa-weak``, ``P-256``, ``P-384``, ``P-521``, ``Ed25519``; one per name."""
    kind = kind.removesuffix("-other")
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, 1024 if kind.endswith("weak") else 2048)
    curves: dict[str, Any] = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1, "k1": ec.SECP256K1}
    return ec.generate_private_key(curves[kind]())


def private_pem(kind: str) -> bytes:
    pem: bytes = key(kind).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem


def public_pem(kind: str) -> bytes:
    pem: bytes = key(kind).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def jwk(kind: str, kid: str | None = None, **more: Any) -> dict[str, Any]:
    """The public key as a JWK; a member of *more* that is None is left out."""
    name = {"r": "RS256", "P": "ES256", "E": "EdDSA", "k": "ES256"}[kind[0]]
    if kind == "P-384":
        name = "ES384"
    if kind == "P-521":
        name = "ES512"
    made = json.loads(_algorithms[name].to_jwk(key(kind).public_key()))
    made.pop("key_ops", None)
    if kid is not None:
        made["kid"] = kid
    return {**made, **more}


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


def b64(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


def signature(signed: bytes, algorithm: str = "HS256", material: Any = SECRET) -> bytes:
    """What PyJWT's algorithm makes of it, whatever stands in the header."""
    used = _algorithms[algorithm]
    if isinstance(material, bytes) and algorithm.startswith("HS"):
        return used.sign(signed, material)  # No check whether a public key is used as a secret.
    return used.sign(signed, used.prepare_key(material))


def raw(header: bytes, payload: bytes, algorithm: str = "HS256", material: Any = SECRET) -> bytes:
    """A token of these JSON texts, correctly signed."""
    signed = b64(header) + b"." + b64(payload)
    return signed + b"." + b64(signature(signed, algorithm, material))


def token(
    header: dict[str, Any] | None = None, algorithm: str = "HS256", material: Any = SECRET, **claims: Any
) -> bytes:
    """
    A token, correctly signed by *algorithm*; claims and header members that are None are left out.
    """
    merged = {"alg": algorithm, "typ": "JWT", **(header or {})}
    said = {**CLAIMS, **claims}
    return raw(
        json.dumps({name: value for name, value in merged.items() if value is not None}).encode(),
        json.dumps({name: value for name, value in said.items() if value is not None}).encode(),
        algorithm,
        material,
    )


def hmac_issuer(**more: Any) -> Issuer:
    return Issuer(
        **{
            "issuer": HMAC_ISSUER,
            "audience": ("gateway", "other"),
            "algorithms": ("HS256",),
            "secret": Secret(SECRET),
            **more,
        }
    )


def no_fetch(*_: Any) -> Any:
    raise AssertionError("nothing is fetched")


def no_report(event: str, *, issuer: str, detail: str) -> None:
    """Nobody listens."""


def authenticator(*issuers: Issuer, revocations: MemoryRevocations | None = None, **more: Any) -> JwtAuthenticator:
    section = Auth(issuer=issuers or (hmac_issuer(),), **more)
    ring = KeyRing(section, no_fetch, Clock(), no_report)
    return JwtAuthenticator(section, ring, MemoryRevocations(lambda: NOW) if revocations is None else revocations)


def accepted(judge: JwtAuthenticator, presented: bytes, now: float = NOW) -> Identity:
    found = judge.authenticate(presented, now)
    assert isinstance(found, Identity)
    return found

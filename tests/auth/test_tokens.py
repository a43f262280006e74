"""
Every algorithm, what is remembered of verified tokens, and any token at all.
"""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.auth.making import (
    CLAIMS,
    HMAC_ISSUER,
    NOW,
    RSA_ISSUER,
    SECRET,
    accepted,
    authenticator,
    hmac_issuer,
    jwk,
    jwks,
    private_pem,
    public_pem,
    raw,
    token,
)

from gateway.auth.keys import KeyFault
from gateway.config.sections import Auth, Issuer, Secret
from gateway.core.identity import Revocation
from gateway.core.problems import Problem
from gateway.memory.revocations import MemoryRevocations

ASYMMETRIC = [
    *[(name, "rsa") for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")],
    ("ES256", "P-256"),
    ("ES384", "P-384"),
    ("ES512", "P-521"),
    ("EdDSA", "Ed25519"),
]
ALL = tuple(name for name, _ in ASYMMETRIC)


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_secret_verifies(algorithm: str) -> None:
    """
    A token signed with the shared secret is accepted.
    """
    judge = authenticator(hmac_issuer(algorithms=(algorithm,)))
    assert accepted(judge, token(algorithm=algorithm)).subject == "alice"


@pytest.mark.parametrize(("algorithm", "kind"), ASYMMETRIC)
def test_public_key_verifies(algorithm: str, kind: str, tmp_path: Path) -> None:
    """
    A token signed with a private key is accepted, by the public key as PEM and as JWK; never by another of its kind.
    """
    (tmp_path / "key.pem").write_bytes(public_pem(kind))
    (tmp_path / "jwks.json").write_bytes(jwks(jwk(kind, "k", alg=algorithm, use="sig", key_ops=["verify"])))
    by_pem = authenticator(Issuer(HMAC_ISSUER, ("gateway",), (algorithm,), public_key_file=tmp_path / "key.pem"))
    by_set = authenticator(Issuer(HMAC_ISSUER, ("gateway",), (algorithm,), jwks_file=tmp_path / "jwks.json"))
    good = token({"kid": "k"}, algorithm, private_pem(kind))
    bad = token({"kid": "k"}, algorithm, private_pem(f"{kind}-other"))
    for judge in (by_pem, by_set):
        assert accepted(judge, good).subject == "alice"
        with pytest.raises(Problem, match="not acceptable") as caught:
            judge.authenticate(bad, NOW)
        assert caught.value.reason == "signature"


def test_what_a_set_must_not_bring_is_left_out(tmp_path: Path) -> None:
    """
    Private, symmetric, weak and encryption keys, and keys of strange types, do not verify.
    """
    secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "k"}
    left_out: list[Any] = [
        secret,
        jwk("rsa", "k", use="enc"),
        jwk("rsa", "k", key_ops=["encrypt"]),
        jwk("rsa", "k", key_ops="verify"),
        jwk("rsa", "k", d="AQAB"),
        jwk("rsa", "k", alg="RSA-OAEP"),
        jwk("rsa", "k", alg="none"),
        jwk("rsa", 7),  # type: ignore[arg-type]  # That is the point.
        jwk("rsa", "k" * 257),
        jwk("rsa", "k", n="AQAB"),
        jwk("rsa", "k", e="AQ"),
        jwk("rsa", "k", n=None),
        jwk("rsa-weak", "k"),
        jwk("k1", "k"),
        jwk("P-256", "k", crv="P-384"),
        jwk("P-256", "k", x="AAAA"),
        jwk("Ed25519", "k", crv="X25519"),
        {"kty": "RSA"},
        {"kty": ["RSA"]},
        "RSA",
        None,
    ]
    path = tmp_path / "jwks.json"
    issuer = Issuer(HMAC_ISSUER, ("gateway",), ALL, jwks_file=path)
    for entry in left_out:
        path.write_bytes(jwks(entry))
        with pytest.raises(KeyFault, match="none of its 1 keys"):
            authenticator(issuer)
    path.write_bytes(jwks(*left_out, jwk("P-256", "good")))
    judge = authenticator(issuer)
    assert accepted(judge, token({"kid": "good"}, "ES256", private_pem("P-256"))).subject == "alice"


@pytest.mark.parametrize(
    ("issuer", "text"),
    [
        ({"secret": Secret(public_pem("rsa").decode())}, "which is no secret"),
        ({"secret": None}, "no key"),
        ({"secret": None, "public_key_file": "missing.pem"}, "No such file"),
        ({"secret": None, "public_key_file": "private.pem"}, "private key"),
        ({"secret": None, "public_key_file": "weak.pem"}, "too weak"),
        ({"secret": None, "public_key_file": "jwks.json"}, "no public key"),
        ({"secret": None, "jwks_file": "private.pem"}, "not a JSON object"),
        ({"secret": None, "jwks_file": "jwks.json"}, "none of its 0 keys"),
        ({"algorithms": ("RS256",)}, "a secret verifies"),
    ],
)
def test_unusable_key_is_named(issuer: dict[str, Any], text: str, tmp_path: Path) -> None:
    """
    Key material that cannot be used is a fault that names issuer, setting and cause, and shows no secret.
    """
    (tmp_path / "private.pem").write_bytes(private_pem("rsa"))
    (tmp_path / "weak.pem").write_bytes(public_pem("rsa-weak"))
    (tmp_path / "jwks.json").write_bytes(jwks())
    more = {name: tmp_path / value if name.endswith("file") else value for name, value in issuer.items()}
    if more.get("secret", ...) is None:
        more["algorithms"] = ALL
    with pytest.raises(KeyFault, match=text) as caught:
        authenticator(hmac_issuer(**more))
    assert HMAC_ISSUER in str(caught.value)
    assert SECRET not in str(caught.value)


def test_verified_token_is_remembered_until_it_expires() -> None:
    """
    A second look costs no verification; after ``exp`` and the leeway the token is refused.
    """
    judge = authenticator()
    first = accepted(judge, token())
    assert accepted(judge, token(), NOW + 89) is first
    assert judge.cached == 1
    with pytest.raises(Problem) as caught:
        judge.authenticate(token(), NOW + 90)
    assert caught.value.reason == "expired"
    assert judge.cached == 0


def test_remembered_tokens_are_bounded() -> None:
    """
    However many tokens come and however long, no more are kept than configured; the newest are.
    """
    judge = authenticator(cache_size=16)
    for number in range(100):
        accepted(judge, token(jti=f"t{number}"))
        assert judge.cached <= 16
    newest = accepted(judge, token(jti="t99"))
    assert accepted(judge, token(jti="t99")) is newest
    for number in range(20):
        accepted(judge, token(jti=f"long{number}", pad="x" * 5000))
        assert judge.cached <= 16
    assert judge.cached <= 5
    newest = accepted(judge, token(jti="t100"))
    assert accepted(judge, token(jti="t100")) is newest
    none = authenticator(cache_size=0)
    assert accepted(none, token()) is not accepted(none, token())
    assert none.cached == 0


def test_revocation_is_asked_each_time() -> None:
    """
    A token that was verified and remembered is refused from the moment it is revoked.
    """
    revocations = MemoryRevocations(lambda: NOW)
    judge = authenticator(revocations=revocations)
    presented, other = token(jti="t1", sid="s1"), token(sub="bob", iat=NOW - 10)
    accepted(judge, presented)
    accepted(judge, other)
    revocations.add(Revocation(NOW + 100, token_id="s1"))
    revocations.add(Revocation(NOW + 100, subject="bob", issued_before=NOW - 5))
    for revoked in (presented, other, token(jti="t2", sid="s1"), token(jti="s1")):
        with pytest.raises(Problem) as caught:
            judge.authenticate(revoked, NOW)
        assert caught.value.reason == "revoked"
    assert accepted(judge, token(sub="bob")).subject == "bob"


def test_other_configuration_forgets() -> None:
    """
    What was verified under one configuration is verified anew under another; the same one changes nothing.
    """
    judge = authenticator()
    accepted(judge, token())
    judge.configure(Auth(issuer=(hmac_issuer(),)))
    assert judge.cached == 1
    judge.configure(Auth(issuer=(hmac_issuer(leeway_s=0),)))
    assert judge.cached == 0


_bytes = st.binary(max_size=400)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
JUDGE = authenticator()
GOOD = token()


def judged(presented: bytes) -> str:
    """The reason of a refusal, or the subject; anything but ``Problem`` goes through."""
    try:
        return accepted(JUDGE, presented).subject
    except Problem as problem:
        return problem.reason if problem.kind.code == "token_invalid" else "alice"


@settings(max_examples=400, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255), st.sampled_from(["replace", "insert", "delete", "cut"]))
def test_no_mutated_token_is_accepted(at: int, byte: int, how: str) -> None:
    """
    A token with any byte replaced, inserted or removed is refused, and nothing fails.
    """
    after = GOOD[at:] if how == "insert" else GOOD[at + 1 :] if how != "cut" else b""
    mutated = GOOD[:at] + (bytes([byte]) if how in ("replace", "insert") else b"") + after
    if mutated != GOOD:
        assert judged(mutated) != "alice"


@settings(max_examples=300, deadline=None)
@given(_bytes, _bytes, st.sampled_from([b".", b"..", b"", b"\x00"]))
@example(b"\xff" * 9, b"", b".")
def test_any_bytes_are_refused(left: bytes, right: bytes, between: bytes) -> None:
    """
    Bytes that are no token are refused, also correctly signed ones; nothing fails.
    """
    assert judged(left + between + right) != "alice"
    assert judged(raw(left, right)) != "alice"
    assert judged(raw(b'{"alg":"HS256"}', right)) != "alice"


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([*CLAIMS, "nbf", "jti", "sid", "scope", "scp"]),
    _json,
    st.sampled_from(["kid", "typ", "alg"]),
    _json,
)
def test_any_claim_and_header_is_judged(name: str, value: Any, header: str, said: Any) -> None:
    """
    Whatever a correctly signed token says in a claim or header parameter, the answer is an identity or a refusal.
    """
    judged(token({header: said}))
    outcome = judged(token(**{name: value}))
    if outcome not in ("alice", value):
        assert outcome


def test_issuer_in_a_set_of_two_is_verified_by_its_own_keys() -> None:
    """
    With two issuers of one secret each, a token is good for the one it names only.
    """
    other = Secret("the other issuer's secret, long enough")
    judge = authenticator(hmac_issuer(), hmac_issuer(issuer=RSA_ISSUER, secret=other))
    assert accepted(judge, token(material=other.reveal(), iss=RSA_ISSUER)).issuer == RSA_ISSUER
    assert accepted(judge, token()).issuer == HMAC_ISSUER
    for swapped in (token(material=other.reveal()), token(iss=RSA_ISSUER)):
        with pytest.raises(Problem) as caught:
            judge.authenticate(swapped, NOW)
        assert caught.value.reason == "signature"

"""
Tokens that must not be accepted, each by a name, each refused for the reason it should be.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.auth.making import (
    CLAIMS,
    HMAC_ISSUER,
    NOW,
    RSA_ISSUER,
    SECRET,
    accepted,
    authenticator,
    b64,
    hmac_issuer,
    jwk,
    jwks,
    private_pem,
    public_pem,
    raw,
    signature,
    token,
)

from gateway.auth.reasons import REASONS
from gateway.auth.tokens import JwtAuthenticator
from gateway.config.sections import Issuer
from gateway.core.problems import Problem

HEADER = b'{"alg":"HS256","typ":"JWT"}'
GOOD = token()


def text(**claims: Any) -> bytes:
    return json.dumps({**CLAIMS, **claims}).encode()


def with_text(name: str, literal: bytes = b"") -> bytes:
    """A signed token in which claim *name* is this JSON text, or is missing."""
    claims = {k: v for k, v in CLAIMS.items() if k != name}
    if not literal:
        return raw(HEADER, json.dumps(claims).encode())
    return raw(HEADER, json.dumps(claims).encode()[:-1] + b', "%b": %b}' % (name.encode(), literal))


def parts(spoil: Callable[[bytes, bytes, bytes], bytes]) -> bytes:
    return spoil(*GOOD.split(b"."))


def signed(signing_input: bytes) -> bytes:
    return signing_input + b"." + b64(signature(signing_input))


def unsigned(algorithm: Any, end: bytes = b"") -> bytes:
    return b64(json.dumps({"alg": algorithm, "typ": "JWT"}).encode()) + b"." + b64(text()) + b"." + end


def rsa(header: dict[str, Any] | None = None, algorithm: str = "RS256", material: Any = None, **claims: Any) -> bytes:
    return token(
        {"kid": "r1", **(header or {})},
        algorithm,
        private_pem("rsa") if material is None else material,
        **{"iss": RSA_ISSUER, **claims},
    )


def last_changed(segment: bytes) -> bytes:
    """Another last sign that decodes to the same bytes: bits that mean nothing are set."""
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return segment[:-1] + alphabet[alphabet.index(segment[-1:]) + 1 :][:1]


def jwe(count: int = 5) -> bytes:
    return b".".join([b64(b'{"alg":"dir","enc":"A256GCM"}'), *[b64(b"\x01" * 16)] * (count - 1)])


FORMS: list[tuple[str, bytes, str]] = [
    # No signature, or another's.
    *[
        (f"alg {name!r}", unsigned(name, b64(b"x")), "algorithm")
        for name in ("none", "None", "NONE", "nOnE", "", "null")
    ],
    ("alg none, nothing signed", unsigned("none"), "malformed"),
    (
        "alg none, its own signature kept",
        parts(lambda h, p, s: b64(b'{"alg":"none"}') + b"." + p + b"." + s),
        "algorithm",
    ),
    ("alg none with blanks", unsigned(" none ", b64(b"x")), "algorithm"),
    ("alg missing", token({"alg": None}), "algorithm"),
    ("alg null", raw(b'{"alg":null}', text()), "algorithm"),
    ("alg a list", raw(b'{"alg":["HS256"]}', text()), "algorithm"),
    ("alg a number", raw(b'{"alg":256}', text()), "algorithm"),
    ("alg lower case", token({"alg": "hs256"}), "algorithm"),
    ("alg not the issuer's", token(algorithm="HS512"), "algorithm"),
    ("alg unknown", token({"alg": "HS257"}), "algorithm"),
    ("alg twice", raw(b'{"alg":"none","alg":"HS256"}', text()), "duplicate_member"),
    ("another secret", token(material=b"another secret of enough bytes, really"), "signature"),
    ("empty secret", token(material=b""), "signature"),
    ("signature empty", parts(lambda h, p, s: h + b"." + p + b"."), "malformed"),
    ("signature cut", parts(lambda h, p, s: h + b"." + p + b"." + b64(b"x" * 16)), "signature"),
    ("signature longer", token() + b"AAAA", "signature"),
    ("signature zeros", parts(lambda h, p, s: h + b"." + p + b"." + b64(bytes(32))), "signature"),
    ("claims of another token", parts(lambda h, p, s: h + b"." + b64(text(sub="root")) + b"." + s), "signature"),
    ("header of another token", parts(lambda h, p, s: b64(b'{"alg":"HS256"}') + b"." + p + b"." + s), "signature"),
    # Families confused.
    ("public key as secret", rsa(algorithm="HS256", material=public_pem("rsa")), "algorithm"),
    ("public key as secret, alg says RS256", rsa({"alg": "RS256"}, "HS256", public_pem("rsa")), "signature"),
    ("JWK as secret", rsa(algorithm="HS256", material=json.dumps(jwk("rsa")).encode()), "algorithm"),
    ("RS256 for the HS256 issuer", token(algorithm="RS256", material=private_pem("rsa")), "algorithm"),
    ("RS256 says HS256", token({"alg": "HS256"}, "RS256", private_pem("rsa")), "signature"),
    ("PS256 says RS256", rsa({"alg": "RS256"}, "PS256"), "signature"),
    ("RS512 not allowed", rsa(algorithm="RS512"), "algorithm"),
    ("another RSA key", rsa(material=private_pem("rsa-other")), "signature"),
    ("ES256 signature as DER", rsa({"kid": "e1", "alg": "ES256"}, "RS256"), "signature"),
    ("key bound to another alg", rsa({"kid": "e1"}), "key_unknown"),
    ("ES256 of zeros", b".".join([*rsa({"kid": "e1", "alg": "ES256"}).split(b".")[:2], b64(bytes(64))]), "signature"),
    ("one issuer's token with the other's key", rsa(iss=HMAC_ISSUER), "algorithm"),
    ("the other way", token(iss=RSA_ISSUER), "algorithm"),
    # Keys named from outside.
    *[
        (f"kid {kid!r}", rsa({"kid": kid}), "key_unknown")
        for kid in (
            "../../../../dev/null",
            "/etc/passwd",
            "r1' OR '1'='1",
            "https://evil.example/key",
            "r1\x00",
            "R1",
            "r1 ",
            "__class__",
            "|cat /etc/passwd",
        )
    ],
    ("kid too long", rsa({"kid": "k" * 257}), "header_type"),
    ("kid empty", rsa({"kid": ""}), "header_type"),
    ("kid a number", rsa({"kid": 1}), "header_type"),
    ("kid a list", rsa({"kid": ["r1"]}), "header_type"),
    ("kid null", raw(b'{"alg":"HS256","kid":null}', text()), "header_type"),
    ("own key in jwk", rsa({"jwk": jwk("rsa-other")}, material=private_pem("rsa-other")), "signature"),
    (
        "own key in jwk, unknown kid",
        rsa({"kid": "x", "jwk": jwk("rsa-other", "x")}, material=private_pem("rsa-other")),
        "key_unknown",
    ),
    ("own key at jku", rsa({"jku": "https://evil.example/jwks"}, material=private_pem("rsa-other")), "signature"),
    ("own key at x5u", rsa({"x5u": "https://evil.example/c.pem"}, material=private_pem("rsa-other")), "signature"),
    ("own key in x5c", rsa({"x5c": ["MIIB"]}, material=private_pem("rsa-other")), "signature"),
    # Headers that must be understood.
    ("crit unknown", token({"crit": ["exp2"], "exp2": 1}), "critical_header"),
    ("crit b64", token({"crit": ["b64"], "b64": True}), "critical_header"),
    ("crit empty", token({"crit": []}), "critical_header"),
    ("crit a text", token({"crit": "exp"}), "critical_header"),
    ("b64 false", token({"b64": False}), "critical_header"),
    (
        "b64 false, payload detached",
        b64(b'{"alg":"HS256","b64":false,"crit":["b64"]}') + b".." + b64(b"x"),
        "malformed",
    ),
    ("enc in three parts", token({"enc": "A256GCM"}), "encrypted"),
    ("typ of another kind", token({"typ": "at+jwt"}), "token_type"),
    ("typ JWE", token({"typ": "JWE"}), "token_type"),
    ("typ a number", token({"typ": 1}), "token_type"),
    ("typ null", raw(b'{"alg":"HS256","typ":null}', text()), "token_type"),
    # Claims missing, of the wrong type, or saying no.
    *[(f"{name} missing", with_text(name), "claim_missing") for name in ("exp", "iss", "aud", "sub")],
    *[
        (f"{name} null", with_text(name, b"null"), "claim_missing" if name == "iss" else "claim_type")
        for name in ("exp", "iss", "aud", "sub")
    ],
    ("exp text", token(exp=str(int(NOW + 60))), "claim_type"),
    ("exp true", token(exp=True), "claim_type"),
    ("exp a list", token(exp=[NOW + 60]), "claim_type"),
    ("exp 1e300", with_text("exp", b"1e300"), "claim_type"),
    ("exp 1e999", with_text("exp", b"1e999"), "malformed"),
    ("exp NaN", with_text("exp", b"NaN"), "malformed"),
    ("exp Infinity", with_text("exp", b"Infinity"), "malformed"),
    ("exp -Infinity", with_text("exp", b"-Infinity"), "malformed"),
    ("exp of 400 digits", with_text("exp", b"9" * 400), "claim_type"),
    ("exp of 5000 digits", with_text("exp", b"9" * 5000), "malformed"),
    ("exp hexadecimal", with_text("exp", b"0xffffffff"), "malformed"),
    ("exp negative", token(exp=-1), "claim_type"),
    ("exp zero", with_text("exp", b"0"), "expired"),
    ("exp passed", token(exp=NOW - 30), "expired"),
    ("exp in milliseconds", token(exp=NOW * 1000), "claim_type"),
    ("nbf in the future", token(nbf=NOW + 31), "not_yet_valid"),
    ("nbf text", token(nbf="0"), "claim_type"),
    ("nbf false", token(nbf=False), "claim_type"),
    ("iat in the future", token(iat=NOW + 31), "not_yet_valid"),
    ("iat text", token(iat="now"), "claim_type"),
    ("aud another", token(aud="billing"), "audience"),
    ("aud others", token(aud=["billing", "shop"]), "audience"),
    ("aud empty", token(aud=""), "audience"),
    ("aud none of none", token(aud=[]), "audience"),
    ("aud beginning like ours", token(aud="gateway2"), "audience"),
    ("aud in other case", token(aud="Gateway"), "audience"),
    ("aud a number", token(aud=1), "claim_type"),
    ("aud holds a number", token(aud=["gateway", 1]), "claim_type"),
    ("aud an object", token(aud={"gateway": True}), "claim_type"),
    ("iss another", token(iss="https://evil.example"), "issuer_unknown"),
    ("iss with a slash more", token(iss=HMAC_ISSUER + "/"), "issuer_unknown"),
    ("iss in other case", token(iss=HMAC_ISSUER.upper()), "issuer_unknown"),
    ("iss a list", token(iss=[HMAC_ISSUER]), "claim_type"),
    ("iss empty", token(iss=""), "issuer_unknown"),
    ("sub empty", token(sub=""), "claim_type"),
    ("sub of 257 characters", token(sub="a" * 257), "claim_type"),
    ("jti of 257 characters", token(jti="a" * 257), "claim_type"),
    ("sub a number", token(sub=7), "claim_type"),
    ("sub a list", token(sub=["alice"]), "claim_type"),
    ("jti a number", token(jti=7), "claim_type"),
    ("sid a list", token(sid=["s"]), "claim_type"),
    ("scope a number", token(scope=7), "claim_type"),
    ("scp holds a number", token(scp=["a", 7]), "claim_type"),
    ("exp twice", raw(HEADER, text()[:-1] + b',"exp":9999999999}'), "duplicate_member"),
    ("sub twice, once escaped", raw(HEADER, text()[:-1] + rb',"\u0073ub":"root"}'), "duplicate_member"),
    ("a member twice, deep", raw(HEADER, text()[:-1] + b',"x":{"a":1,"a":2}}'), "duplicate_member"),
    # Forms.
    ("nothing", b"", "malformed"),
    ("one part", b"abc", "malformed"),
    ("two parts", parts(lambda h, p, s: h + b"." + p), "malformed"),
    ("four parts", GOOD + b".x", "malformed"),
    ("six parts", jwe(6), "malformed"),
    ("only dots", b"..", "malformed"),
    ("JWE", jwe(), "encrypted"),
    ("JWE within", raw(b'{"alg":"HS256","cty":"JWT"}', jwe()), "malformed"),
    ("JWT within", raw(b'{"alg":"HS256","cty":"JWT"}', GOOD), "malformed"),
    ("JSON serialization", json.dumps({"payload": "e30", "signatures": []}).encode(), "malformed"),
    ("padding after the signature", GOOD + b"=", "malformed"),
    ("much padding", GOOD + b"==", "malformed"),
    ("padding in the header", parts(lambda h, p, s: h + b"=." + p + b"." + s), "malformed"),
    (
        "signed padding",
        signed(b64(HEADER) + b"=." + b64(text())),
        "malformed",
    ),
    ("another last sign", parts(lambda h, p, s: h + b"." + p + b"." + last_changed(s)), "malformed"),
    (
        "base64 of the other alphabet",
        signed(b64(HEADER) + b"." + b64(text(name="???>>>")).replace(b"_", b"/").replace(b"-", b"+")),
        "malformed",
    ),
    ("leading blank", b" " + GOOD, "malformed"),
    ("trailing blank", GOOD + b" ", "malformed"),
    ("trailing newline", GOOD + b"\n", "malformed"),
    ("newline within", parts(lambda h, p, s: h + b".\n" + p + b"." + s), "malformed"),
    ("tab within", parts(lambda h, p, s: h[:4] + b"\t" + h[4:] + b"." + p + b"." + s), "malformed"),
    ("NUL at the end", GOOD + b"\x00", "malformed"),
    ("quoted", b'"' + GOOD + b'"', "malformed"),
    ("percent-encoded", GOOD.replace(b".", b"%2E"), "malformed"),
    ("comma and another", GOOD + b"," + GOOD, "encrypted"),
    ("not ASCII", GOOD + "é".encode(), "malformed"),
    ("not UTF-8 at all", b"\xff\xfe\xfd.\xff.\xff", "malformed"),
    ("64 KiB", token(name="x" * 49152), "too_long"),
    ("64 KiB of dots", b"." * 65536, "too_long"),
    ("just too long", b"a" * 8193, "too_long"),
    ("claims a list", raw(HEADER, b"[]"), "malformed"),
    ("claims a text", raw(HEADER, b'"alice"'), "malformed"),
    ("claims null", raw(HEADER, b"null"), "malformed"),
    ("claims no JSON", raw(HEADER, b"{"), "malformed"),
    ("claims, then more", raw(HEADER, text() + b"{}"), "malformed"),
    ("claims with a comment", raw(HEADER, text()[:-1] + b"/**/}"), "malformed"),
    ("claims not UTF-8", raw(HEADER, text()[:-1] + b',"n":"\xff"}'), "malformed"),
    ("claims in UTF-16", raw(HEADER, text().decode().encode("utf-16")), "malformed"),
    ("claims after a BOM", raw(HEADER, b"\xef\xbb\xbf" + text()), "malformed"),
    ("half a surrogate pair", raw(HEADER, text()[:-1] + rb',"n":"\ud800"}'), "malformed"),
    ("claims with a raw newline in a text", raw(HEADER, text()[:-1] + b',"n":"a\nb"}'), "malformed"),
    ("claims nested 17 deep", raw(HEADER, text()[:-1] + b',"n":' + b"[" * 17 + b"]" * 17 + b"}"), "malformed"),
    ("claims nested 2500 deep", raw(HEADER, text()[:-1] + b',"n":' + b"[" * 2500 + b"]" * 2500 + b"}"), "malformed"),
    ("header a list", raw(b'["HS256"]', text()), "malformed"),
    ("header no JSON", raw(b"HS256", text()), "malformed"),
    ("header not UTF-8", raw(b'{"alg":"HS256","x":"\xff"}', text()), "malformed"),
]
"""Name, token, reason."""


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> JwtAuthenticator:
    folder: Path = tmp_path_factory.mktemp("keys")
    (folder / "jwks.json").write_bytes(jwks(jwk("rsa", "r1"), jwk("P-256", "e1")))
    return authenticator(
        hmac_issuer(),
        Issuer(RSA_ISSUER, ("gateway",), ("RS256", "ES256"), jwks_file=folder / "jwks.json"),
    )


@pytest.mark.parametrize(("presented", "reason"), [form[1:] for form in FORMS], ids=[form[0] for form in FORMS])
def test_bad_token_is_refused(judge: JwtAuthenticator, presented: bytes, reason: str) -> None:
    """
    No spoilt token is accepted; the caller learns that it is invalid, the log learns why.
    """
    with pytest.raises(Problem) as caught:
        judge.authenticate(presented, NOW)
    problem = caught.value
    assert (problem.kind.code, problem.reason) == ("token_invalid", reason)
    assert problem.headers == ((b"WWW-Authenticate", b'Bearer error="invalid_token"'),)
    assert not problem.detail
    assert judge.cached == 0


def test_table_is_large_and_reasons_are_closed() -> None:
    """
    The table has far more than 60 forms, and every reason but those of other tests occurs in it.
    """
    assert len(FORMS) >= 60
    assert len({form[1] for form in FORMS}) >= len(FORMS) - 2
    assert set(REASONS) - {form[2] for form in FORMS} == {"lifetime", "revoked", "certificate_subject"}


def test_good_tokens_beside_the_bad_ones() -> None:
    """
    What the spoilt tokens were made of is accepted.
    """
    judge = authenticator()
    identity = accepted(judge, GOOD)
    assert (identity.subject, identity.issuer, identity.expires_at) == ("alice", HMAC_ISSUER, NOW + 60)
    for fine in (
        token({"typ": None}),
        token({"typ": "jwt"}),
        token({"typ": "application/JWT"}),
        token({"kid": "any, for a secret has no name"}),
        token({"jku": "https://evil.example/jwks"}),
        token(aud=["billing", "other"]),
        token(exp=NOW - 29),
        token(exp=NOW + 0.5),
        token(nbf=NOW + 29, iat=NOW + 29),
        token(iat=None),
        token(name="Zoë 😀", deep=[[[[{"a": 1}]]]]),
        raw(HEADER, text()[:-1] + rb',"n":"\ud83d\ude00"}'),
    ):
        assert accepted(judge, fine).subject == "alice"


def test_scopes_and_ids_are_read() -> None:
    """
    Scopes come from ``scope`` and ``scp``, texts or lists; token and session id from ``jti`` and ``sid``.
    """
    identity = accepted(authenticator(), token(scope="a b", scp=["c d", "e"], jti="t1", sid="s1"))
    assert identity.scopes == {"a", "b", "c d", "e"}
    assert (identity.token_id, identity.session_id, identity.issued_at) == ("t1", "s1", NOW)
    assert SECRET not in repr(identity)
    assert "eyJ" not in repr(identity)


def test_max_lifetime_needs_iat_and_bounds_exp() -> None:
    """
    With ``max_lifetime`` a token must say when it was issued, and may not live longer.
    """
    judge = authenticator(hmac_issuer(max_lifetime_s=60.0))
    assert accepted(judge, token()).subject == "alice"
    for presented, reason in ((token(exp=NOW + 61), "lifetime"), (token(iat=None), "claim_missing")):
        with pytest.raises(Problem) as caught:
            judge.authenticate(presented, NOW)
        assert caught.value.reason == reason


def test_configured_type_is_demanded() -> None:
    """
    An issuer with ``type = "at+jwt"`` has only access tokens accepted (RFC 9068, section 4).
    """
    judge = authenticator(hmac_issuer(type="at+jwt"))
    for kind in ("at+jwt", "AT+JWT", "application/at+jwt"):
        assert accepted(judge, token({"typ": kind})).subject == "alice"
    for other in ("JWT", None, "jwt+at", "x/at+jwt"):
        with pytest.raises(Problem) as caught:
            judge.authenticate(token({"typ": other}), NOW)
        assert caught.value.reason == "token_type"


def test_no_keys_of_a_remote_set_are_mistaken(tmp_path: Path) -> None:
    """
    A token without ``kid`` is tried with fitting keys, but not with more than four.
    """
    path = tmp_path / "jwks.json"
    issuer = Issuer(RSA_ISSUER, ("gateway",), ("ES256",), jwks_file=path)
    presented = token({"kid": None}, "ES256", private_pem("P-256"), iss=RSA_ISSUER)
    path.write_bytes(jwks(jwk("P-256-other", "a"), jwk("P-384", "b"), jwk("P-256", "c")))
    assert accepted(authenticator(issuer), presented).subject == "alice"
    path.write_bytes(jwks(*[jwk("P-256", f"k{number}") for number in range(5)]))
    with pytest.raises(Problem) as caught:
        authenticator(issuer).authenticate(presented, NOW)
    assert caught.value.reason == "key_unknown"

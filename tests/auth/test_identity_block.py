"""
What a backend is told about the caller, and the tokens the gateway signs itself.
"""

from typing import Any, Literal
from urllib.parse import unquote

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.auth.making import NOW, jwks

from gateway.auth.identity_block import header_value, identity_block
from gateway.auth.keyset import from_jwks
from gateway.auth.minted import Minter
from gateway.config.sections import Upstream
from gateway.core.identity import Identity

Way = Literal["headers", "token", "minted", "none"]


class Watch:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def identity(credential: bytes = b"h.c.s", subject: str = "alice", **claims: Any) -> Identity:
    return Identity(subject, "i", NOW + 60, claims={"sub": subject, **claims}, credential=credential)


def block(way: Way, who: Identity, *headers: tuple[str, str]) -> bytes:
    return identity_block(Upstream("players", identity=way, identity_headers=headers), Minter("gw", Watch()))(who)


def test_headers_say_subject_and_configured_claims() -> None:
    """
    ``X-User-Id`` is the subject; a configured header is there if its claim is.
    """
    who = identity(roles=["admin", "player"], realm={"level": 3, "vip": True}, empty="", nothing=None)
    found = block(
        "headers",
        who,
        ("X-User-Roles", "claims.roles"),
        ("X-Level", "claims.realm.level"),
        ("X-Vip", "claims.realm.vip"),
        ("X-Realm", "claims.realm"),
        ("X-Missing", "claims.realm.missing.deeper"),
        ("X-Below-Text", "claims.sub.length"),
        ("X-Empty", "claims.empty"),
        ("X-Nothing", "claims.nothing"),
    )
    assert found == (
        b"X-User-Id: alice\r\nX-User-Roles: admin,player\r\nX-Level: 3\r\nX-Vip: true\r\n"
        b'X-Realm: {"level":3,"vip":true}\r\n'
    )


def test_user_id_may_come_from_another_claim() -> None:
    """
    A configured ``X-User-Id`` stands in place of the subject, once.
    """
    assert block("headers", identity(uid="u7"), ("x-user-id", "claims.uid")) == b"x-user-id: u7\r\n"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("auth0|5f 7", b"auth0|5f 7"),
        ("a\r\nX-Admin: 1", b"a%0D%0AX-Admin: 1"),
        ("a\x00b\x7f\t", b"a%00b%7F%09"),
        ("Zoë", b"Zo%C3%AB"),
        ("50%", b"50%25"),
        (" a ", b"%20a%20"),
        ("a,b", b"a,b"),
        (["a,b", "c", 1, None, True], b"a%2Cb,c,1,,true"),
        ([], b""),
        (1.5, b"1.5"),
        (False, b"false"),
        (None, b""),
    ],
)
def test_claims_are_written_safely(value: Any, written: bytes) -> None:
    """
    What cannot stand in a header is percent-encoded, the percent sign as well; a list is joined by commas.
    """
    assert header_value(value) == written


@given(st.text(), st.lists(st.text(min_size=1), min_size=1))
def test_header_values_are_visible_and_can_be_undone(text: str, several: list[str]) -> None:
    """
    Any text becomes visible ASCII without blanks at the ends, from which it can be had again.
    """
    written = header_value(text)
    assert all(0x20 <= byte <= 0x7E for byte in written)
    assert written == written.strip()
    assert unquote(written.decode("ascii")) == text
    assert [unquote(one) for one in header_value(several).decode("ascii").split(",")] == several


def test_token_is_passed_on() -> None:
    """
    With ``identity = "token"`` the client's own token goes on, with ``none`` nothing does.
    """
    assert block("token", identity()) == b"Authorization: Bearer h.c.s\r\n"
    assert block("token", identity(b"")) == b""
    assert block("none", identity()) == b""


def test_callers_are_never_mixed_up() -> None:
    """
    Lines are kept by token; callers without one are each told apart.
    """
    build = identity_block(Upstream("players"), Minter("gw", Watch()))
    assert build(identity(b"t1", "alice")) is build(identity(b"t1", "alice"))
    assert build(identity(b"t2", "bob")) == b"X-User-Id: bob\r\n"
    assert build(identity(b"", "carol")) == b"X-User-Id: carol\r\n"
    assert build(identity(b"", "dave")) == b"X-User-Id: dave\r\n"
    for number in range(10000):
        assert build(identity(b"n%d" % number, f"user{number}")) == b"X-User-Id: user%d\r\n" % number
    assert build(identity(b"t1", "alice")) == b"X-User-Id: alice\r\n"


def test_minted_token_is_verified_by_the_published_keys() -> None:
    """
    A minted token names the caller to one upstream for 60 s, and its keys are published without the private part.
    """
    wall = Watch()
    minter = Minter("gw", wall)
    section = Upstream("players", identity="minted")
    line = identity_block(section, minter)(identity())
    assert line.startswith(b"Authorization: Bearer ")
    presented = line.split()[-1]
    (public,) = minter.jwks()["keys"]
    assert {"kty", "crv", "x", "y", "kid", "use", "alg"} == set(public)
    options: Any = {"verify_exp": False, "verify_iat": False}
    key = jwt.PyJWK(public)
    claims = jwt.decode(presented, key, algorithms=["ES256"], audience="players", issuer="gw", options=options)
    assert (claims["sub"], claims["iat"], claims["exp"]) == ("alice", int(NOW), int(NOW) + 60)
    assert set(claims) == {"iss", "aud", "sub", "iat", "exp", "jti"}
    assert jwt.get_unverified_header(presented) == {"alg": "ES256", "typ": "JWT", "kid": minter.kid}
    assert from_jwks(jwks(public), ("ES256",)).keys[0].kid == minter.kid
    with pytest.raises(jwt.InvalidAudienceError):
        jwt.decode(presented, key, algorithms=["ES256"], audience="billing", options=options)


def test_minted_token_states_what_was_selected() -> None:
    """
    Claims that the upstream asked for are carried over, where there are; none replaces one of the gateway's.
    """
    minter = Minter("gw", Watch())
    caller = identity(roles=["player"], exp=1, email="a@example")
    presented = minter.mint(caller, "players", ("roles", "scope", "sub", "exp"))
    options: Any = {"verify_signature": False}
    claims = jwt.decode(presented, options=options)
    assert set(claims) == {"iss", "aud", "sub", "iat", "exp", "jti", "roles"}
    assert (claims["sub"], claims["exp"], claims["roles"]) == ("alice", int(NOW) + 60, ["player"])
    section = Upstream("players", identity="minted", minted_claims=("roles",))
    assert jwt.decode(identity_block(section, minter)(caller).split()[-1], options=options)["roles"] == ["player"]


def test_minters_that_share_a_key_are_one() -> None:
    """
    What one signs is verified by what the other publishes.
    """
    one = Minter("gw", Watch())
    other = Minter("gw", Watch(), one.private())
    assert other.jwks() == one.jwks() != Minter("gw", Watch()).jwks()
    key = jwt.PyJWK(one.jwks()["keys"][0])
    options: Any = {"verify_exp": False, "verify_iat": False, "verify_aud": False}
    assert jwt.decode(other.mint(identity(), "players"), key, ["ES256"], options=options)["sub"] == "alice"


def test_minted_token_is_used_for_half_its_life() -> None:
    """
    The same token goes out for 30 s, then a new one with another ``jti``; also when the clock was set back.
    """
    wall = Watch()
    build = identity_block(Upstream("players", identity="minted"), Minter("gw", wall))
    first = build(identity())
    wall.now += 30
    assert build(identity()) == first
    wall.now += 1
    second = build(identity())
    assert second != first
    wall.now -= 100
    assert build(identity()) not in (first, second)
    assert build(identity(b"other", "bob")) != build(identity())
    assert build(identity(b"")) != build(identity(b""))

"""
Where a token may stand, and that it goes no further.
"""

import pytest
from tests.node.recording import Recorded, head

from gateway.auth.credentials import CredentialSource
from gateway.auth.scopes import check_scopes
from gateway.config.sections import Auth
from gateway.core.headers import request_block
from gateway.core.identity import Identity
from gateway.core.path import canonical
from gateway.core.problems import Problem
from gateway.ports.http import Exchange

EVERYWHERE = ("header", "cookie", "query")
TAKE = CredentialSource(Auth(cookie="session", query="token"))


def asking(target: str = "/a", headers: dict[str, str] | None = None) -> Exchange:
    exchange = Exchange(Recorded(head("GET", target, headers)), 0.0)
    exchange.target = canonical(exchange.head.target)
    exchange.query = exchange.target.query
    return exchange


@pytest.mark.parametrize(
    ("target", "headers", "places"),
    [
        ("/a", {"Authorization": "Bearer t.o.k"}, ("header",)),
        ("/a", {"Authorization": "bEARER   t.o.k"}, ("header",)),
        ("/a", {"Cookie": "session=t.o.k"}, ("cookie",)),
        ("/a", {"Cookie": "a=b; session=t.o.k;c=d"}, EVERYWHERE),
        ("/a?token=t.o.k", {}, ("query",)),
        ("/a?x=1&token=t.o.k&y", {}, EVERYWHERE),
        ("/a?%74oken=t%2Eo.k", {}, ("query",)),
        ("/a", {"Authorization": "Bearer t.o.k", "Cookie": "session=other"}, ("header",)),
        ("/a?token=other", {"Authorization": "Bearer t.o.k"}, ("header", "cookie")),
        ("/a?token=t.o.k", {"Authorization": "Basic YTpi"}, EVERYWHERE),
    ],
)
def test_token_is_found(target: str, headers: dict[str, str], places: tuple[str, ...]) -> None:
    """
    The token is taken from the places the route names, and from no other.
    """
    assert TAKE(asking(target, headers), places) == b"t.o.k"


@pytest.mark.parametrize(
    ("target", "headers", "places", "code"),
    [
        ("/a", {}, EVERYWHERE, "credential_missing"),
        ("/a?token=t", {"Cookie": "session=t"}, ("header",), "credential_missing"),
        ("/a", {"Authorization": "Bearer t"}, ("cookie", "query"), "credential_missing"),
        ("/a", {"Authorization": "Basic YTpi"}, ("header",), "credential_missing"),
        ("/a", {"Authorization": "Bearertoken"}, ("header",), "credential_missing"),
        ("/a", {"Cookie": "Session=t; xsession=t; session"}, EVERYWHERE, "credential_missing"),
        ("/a?Token=t&xtoken=t", {}, EVERYWHERE, "credential_missing"),
        ("/a", {"Authorization": "Bearer"}, ("header",), "token_invalid"),
        ("/a", {"Authorization": "Bearer "}, ("header",), "token_invalid"),
        ("/a", {"Cookie": "session="}, EVERYWHERE, "token_invalid"),
        ("/a?token", {}, EVERYWHERE, "token_invalid"),
        ("/a?token=t", {"Authorization": "Bearer t"}, EVERYWHERE, "credentials_conflict"),
        ("/a?token=t", {"Cookie": "session=t"}, EVERYWHERE, "credentials_conflict"),
        ("/a?token=t&token=u", {}, EVERYWHERE, "credentials_conflict"),
        ("/a?token=t&tok%65n=t", {}, EVERYWHERE, "credentials_conflict"),
        ("/a", {"Cookie": "session=t; session=u"}, EVERYWHERE, "credentials_conflict"),
    ],
)
def test_none_or_too_many_are_told_apart(
    target: str, headers: dict[str, str], places: tuple[str, ...], code: str
) -> None:
    """
    Without a token 401 without an error, with two of them 400 (RFC 6750, sections 2 and 3.1).
    """
    with pytest.raises(Problem) as caught:
        TAKE(asking(target, headers), places)
    assert caught.value.kind.code == code
    if code == "credential_missing":
        assert caught.value.headers == ((b"WWW-Authenticate", b"Bearer"),)


@pytest.mark.parametrize("places", [("header",), EVERYWHERE])
def test_token_goes_no_further(places: tuple[str, ...]) -> None:
    """
    Cookie and query are passed on without the token, whether or not the route takes it there; the rest stays.
    """
    exchange = asking("/a?x=1&token=secret&y=%20", {"Cookie": "a=b; session=secret; c=d", "Accept": "*/*"})
    with pytest.raises(Problem):
        TAKE(exchange, places)
    assert exchange.query == b"x=1&y=%20"
    assert exchange.target.query == b"x=1&y=%20"
    assert exchange.target.path == b"/a"
    assert exchange.target.raw == exchange.head.target == b"/a?x=1&y=%20"
    assert exchange.head.fields[b"cookie"] == b"a=b; c=d"
    block = request_block(exchange.head, frozenset())
    assert b"Cookie: a=b; c=d\r\n" in block
    assert b"Accept: */*\r\n" in block
    assert b"secret" not in block


def test_cookie_lines_are_read_together() -> None:
    """
    A token in the first of two Cookie lines is found and removed; alone it leaves no empty line behind.
    """
    exchange = asking("/a", {"Cookie": "session=secret", "cookie": "a=b"})
    assert TAKE(exchange, ("cookie",)) == b"secret"
    assert request_block(exchange.head, frozenset()) == b"Cookie: a=b\r\n"
    alone = asking("/a?token=secret", {"Cookie": "session=secret"})
    assert TAKE.clean(alone) == ([b"secret"], [b"secret"])
    assert request_block(alone.head, frozenset()) == b""
    assert (alone.query, alone.target.raw) == (b"", b"/a")


def test_nothing_is_touched_that_is_not_configured() -> None:
    """
    Without configured names cookies and query stay as they came, and so does a request without a token.
    """
    plain = asking("/a?token=t", {"Cookie": "session=t", "Authorization": "Bearer h"})
    before = plain.head, plain.target
    assert CredentialSource(Auth())(plain, EVERYWHERE) == b"h"
    assert (plain.head, plain.target) == before
    other = asking("/a?x=1", {"Cookie": "a=b", "Authorization": "Bearer h"})
    before = other.head, other.target
    assert TAKE(other, EVERYWHERE) == b"h"
    assert (other.head, other.target) == before


def test_scopes_are_all_needed() -> None:
    """
    A caller needs every scope of the route; the 403 names them (RFC 6750, section 3.1).
    """
    identity = Identity("alice", "i", 0.0, scopes=frozenset(("a", "b")))
    check_scopes(identity, ())
    check_scopes(identity, ("a", "b"))
    with pytest.raises(Problem) as caught:
        check_scopes(identity, ("a", "c"))
    assert caught.value.kind.code == "scope_missing"
    assert caught.value.headers == ((b"WWW-Authenticate", b'Bearer error="insufficient_scope", scope="a c"'),)

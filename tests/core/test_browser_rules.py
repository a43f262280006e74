"""
Origins, CORS and security headers, as values in and bytes out.
"""

from __future__ import annotations

import pytest

from gateway.core.browser_rules import BrowserRules, SecurityHeaders
from gateway.core.cors import Cors
from gateway.core.headers import response_block
from gateway.core.message import Header, ResponseHead
from gateway.core.origins import Origins, fault_of

PLAY = b"https://play.example"
LIST = Origins(["https://play.example", "https://*.Play.example:8443", "capacitor://localhost", "http://[::1]:3000"])


@pytest.mark.parametrize(
    "origin",
    [
        "https://play.example",
        "HTTPS://Play.Example",
        "https://a.play.example:8443",
        "https://a.b-c.play.example:8443",
        "capacitor://localhost",
        "http://[::1]:3000",
    ],
)
def test_on_the_list(origin: str) -> None:
    """
    An origin is on the list in any case of its letters, a sub-domain at any depth.
    """
    assert LIST.has(origin.encode())


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "*",
        "http://play.example",
        "https://play.example:444",
        "https://play.example.evil",
        "https://evilplay.example",
        "https://play.example@evil",
        "https://play.example/",
        "https://play.example\r\nX: y",
        "https://play.example:8443",
        "https://a.play.example",
        "https://a.play.example:84430",
        "https://evil/.play.example:8443",
        "https://evil.example?.play.example:8443",
        "https://a..play.example:8443",
        "https://.play.example:8443",
        "https://aplay.example:8443",
        "https://axplay.example:8443",
        "https://a.playxexample:8443",
        "https://a.play.example:8443\n",
        "https://" + "a." * 200 + "play.example:8443",
    ],
)
def test_not_on_the_list(origin: str) -> None:
    """
    What only looks like an entry of the list is not on it.
    """
    assert not LIST.has(origin.encode())


def test_null_is_never_meant_by_any() -> None:
    """
    Sandboxed pages are let in by the word alone.
    """
    assert not Origins(["*"]).has(b"null")
    assert Origins(["*"]).has(b"https://whoever.example")
    assert Origins(["null"]).has(b"null")


@pytest.mark.parametrize(
    "origin",
    [
        "play.example",
        "https://",
        "https://*",
        "https://*.com",
        "https://a.*.example",
        "https://*play.example",
        "https://play.example/",
        "https://play.example:443",
        "http://play.example:80",
        "*.play.example",
        "https://a b",
    ],
)
def test_entries_that_are_none(origin: str) -> None:
    """
    Half of the internet, patterns without an anchor and things that no browser sends are no entries.
    """
    assert fault_of(origin)


def cors(**more: object) -> Cors:
    """Rules for one page."""
    return Cors(Origins(["https://play.example"]), **more)  # type: ignore[arg-type]  # shorter


def test_lines_of_answers() -> None:
    """
    Pages on the list may read the answer; nobody else is named, and caches are told that it depends.
    """
    rules = cors(credentials=True, expose=["Retry-After", "ETag"])
    assert rules.lines(PLAY) == (
        b"Access-Control-Allow-Origin: https://play.example\r\nAccess-Control-Allow-Credentials: true\r\n"
        b"Vary: Origin\r\nAccess-Control-Expose-Headers: Retry-After, ETag\r\n"
    )
    assert rules.lines(b"https://evil.example") == rules.lines(None) == b"Vary: Origin\r\n"
    assert Cors(Origins(["*"])).lines(PLAY) == b"Access-Control-Allow-Origin: *\r\nVary: Origin\r\n"


def test_memory_for_origins_is_bounded() -> None:
    """
    Origins that are made up cost no memory that stays.
    """
    rules = cors()
    for number in range(2000):
        rules.lines(b"https://%d.example" % number)
    assert len(rules._kept) <= 256
    assert rules.lines(PLAY).startswith(b"Access-Control-Allow-Origin: https://play.example\r\n")


def test_preflight() -> None:
    """
    A preflight is told methods of the path, headers of the configuration, and for how long that holds.
    """
    answer = cors(headers=["Authorization"], max_age_s=600, private_network=True).preflight(
        PLAY, [b"PUT", b"GET"], b"X-Other", private_network=True
    )
    assert answer is not None
    assert b"Access-Control-Allow-Methods: GET, PUT\r\n" in answer
    assert b"Access-Control-Allow-Headers: Authorization\r\n" in answer
    assert b"Access-Control-Max-Age: 600\r\n" in answer
    assert b"Access-Control-Allow-Private-Network: true\r\n" in answer
    assert answer.count(b"Vary: ") == 1
    assert b"X-Other" not in answer
    assert cors().preflight(b"https://evil.example", [b"GET"], b"") is None
    assert b"Private" not in (cors().preflight(PLAY, [b"GET"], b"", private_network=True) or b"").split(b"Vary: ")[0]
    narrow = cors(methods=["GET"]).preflight(PLAY, [b"PUT", b"GET"], b"")
    assert narrow is not None
    assert b"Access-Control-Allow-Methods: GET\r\n" in narrow


def test_any_header_is_what_was_asked_for() -> None:
    """
    With ``*`` a preflight gets back the names it asked for, if they are names.
    """
    rules = cors(headers=["*"])
    assert b"Allow-Headers: x-a, x-b\r\n" in (rules.preflight(PLAY, [b"GET"], b"x-a, x-b") or b"")
    for asked in (b"x-a\r\nX: y", b"x-a,,", b"a" * 5000, b"x:y"):
        assert b"Allow-Headers" not in (rules.preflight(PLAY, [b"GET"], asked) or b"").replace(_VARIES, b"")


_VARIES = b"Access-Control-Request-Headers"

SAFE = SecurityHeaders(
    {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"},
    hsts="max-age=60",
    frame_ancestors="'none'",
)
NOSNIFF, REFERRER = b"X-Content-Type-Options: nosniff\r\n", b"Referrer-Policy: same-origin\r\n"
FRAMES, HSTS = b"Content-Security-Policy: frame-ancestors 'none'\r\n", b"Strict-Transport-Security: max-age=60\r\n"


def head(*headers: Header, shared: bool = False) -> ResponseHead:
    """A backend's answer."""
    made = ResponseHead(200, b"OK", list(headers), {name.lower(): value for name, value in headers}, 0)
    if shared:
        made.block = response_block(made)
    return made


def test_own_answers() -> None:
    """
    The gateway's own answers carry all of it, HSTS over TLS alone.
    """
    rules = BrowserRules(SAFE, None)
    assert rules.own(None, secure=False) == NOSNIFF + REFERRER + FRAMES
    assert rules.own(PLAY, secure=True) == NOSNIFF + REFERRER + FRAMES + HSTS


@pytest.mark.parametrize("shared", [False, True])
def test_the_backend_wins(shared: bool) -> None:
    """
    What a backend says of itself stands, once; what it does not say is added.
    """
    rules = BrowserRules(SAFE, None)
    plain = head((b"A", b"b"), shared=shared)
    assert rules.relayed(plain, None, secure=False, authenticated=False) == b"A: b\r\n" + NOSNIFF + REFERRER + FRAMES
    own = head((b"referrer-policy", b"origin"), (b"X-Frame-Options", b"DENY"), shared=shared)
    for _ in range(2):
        assert rules.relayed(own, None, secure=True, authenticated=False) == (
            b"referrer-policy: origin\r\nX-Frame-Options: DENY\r\n" + NOSNIFF + HSTS
        )


def test_a_policy_about_something_else_stands_beside_ours() -> None:
    """
    A backend's own policy keeps pages from being framed only if it says so.
    """
    rules = BrowserRules(SAFE, None)
    scripts = head((b"Content-Security-Policy", b"script-src 'self'"))
    assert rules.relayed(scripts, None, secure=False, authenticated=False).count(b"Content-Security-Policy: ") == 2
    framed = head((b"Content-Security-Policy", b"frame-ancestors 'self'"))
    assert rules.relayed(framed, None, secure=False, authenticated=False).count(b"Content-Security-Policy: ") == 1


def test_override() -> None:
    """
    With ``override`` a backend's own are replaced, but for the rest of its policy.
    """
    strict = SecurityHeaders(SAFE.lines, hsts=SAFE.hsts, frame_ancestors="'none'", override=True)
    rules = BrowserRules(strict, None)
    said = head((b"Referrer-Policy", b"origin"), (b"X-Frame-Options", b"SAMEORIGIN"), (b"A", b"b"))
    assert rules.relayed(said, None, secure=False, authenticated=False) == b"A: b\r\n" + NOSNIFF + REFERRER + FRAMES


def test_authenticated_answers_are_not_kept() -> None:
    """
    An answer to somebody who is known is in no cache, unless the backend says that it may be.
    """
    rules = BrowserRules(SecurityHeaders({}), None)
    assert rules.relayed(head(), None, secure=False, authenticated=True) == b"Cache-Control: no-store\r\n"
    assert rules.relayed(head(), None, secure=False, authenticated=False) == b""
    kept = head((b"Cache-Control", b"private"))
    assert rules.relayed(kept, None, secure=False, authenticated=True) == b"Cache-Control: private\r\n"


@pytest.mark.parametrize("shared", [False, True])
def test_a_backends_cors_is_replaced(shared: bool) -> None:
    """
    Where the gateway has a list, a backend that would let in anybody has nothing to say about it.
    """
    rules = BrowserRules(SecurityHeaders({}), cors())
    loose = head(
        (b"access-control-allow-origin", b"*"),
        (b"Access-Control-Allow-Credentials", b"true"),
        (b"A", b"b"),
        shared=shared,
    )
    answer = rules.relayed(loose, PLAY, secure=False, authenticated=False)
    assert answer == b"A: b\r\nAccess-Control-Allow-Origin: https://play.example\r\nVary: Origin\r\n"
    other = rules.relayed(loose, b"https://evil.example", secure=False, authenticated=False)
    assert other == b"A: b\r\nVary: Origin\r\n"
    assert b"-origin: *" in BrowserRules(SecurityHeaders({}), None).relayed(
        loose, PLAY, secure=False, authenticated=False
    )

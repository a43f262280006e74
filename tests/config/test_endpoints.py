r"""
Endpoint strings mean here what they mean to Twisted.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import endpoints

from gateway.config.endpoints import BadEndpoint, Endpoint, _pieces, read_endpoint


@given(st.text("ab:=\\1/", max_size=12))
def test_strings_are_taken_apart_as_twisted_does(text: str) -> None:
    """
    Positional and named arguments are the same, escapes resolved.
    """
    if (len(text) - len(text.rstrip("\\"))) % 2:  # Twisted's parser fails on a backslash that escapes nothing.
        return
    positional, named = endpoints._parse(text)
    pieces = _pieces(text)
    assert [value for name, value in pieces if name is None] == positional
    assert {name: value for name, value in pieces if name is not None} == named


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tcp:4000", ("tcp", 4000, "", "")),
        ("tcp:port=4000:interface=127.0.0.1", ("tcp", 4000, "127.0.0.1", "")),
        (r"tcp:4000:interface=\:\:1", ("tcp", 4000, "::1", "")),
        ("unix:/run/gw.sock:mode=660", ("unix", 0, "", "/run/gw.sock")),
        ("systemd:domain=INET:index=0", ("systemd", 0, "", "")),
    ],
)
def test_reading(text: str, expected: tuple[str, int, str, str]) -> None:
    """
    Kind, port, interface and path are found.
    """
    endpoint = read_endpoint(text)
    assert (endpoint.kind, endpoint.port, endpoint.interface, endpoint.path) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("4000", "did you mean tcp:4000?"),
        ("127.0.0.1:4000", "did you mean tcp:4000:interface=127.0.0.1?"),
        ("[::1]:4000", r"did you mean tcp:4000:interface=\:\:1?"),
        ("http:4000", "begins with one of tcp:, tcp6:, unix:, systemd:"),
        ("ssl:443:privateKey=key.pem", "`certificate` beside a tcp endpoint"),
        ("haproxy:tcp:4000", "`proxy_protocol_from`"),
        ("tcp:70000", "port from 0 to 65535"),
        ("tcp:x", "port from 0 to 65535"),
        ("tcp:4000:interfaces=127.0.0.1", "and not 'interfaces'"),
        ("tcp:4000:interface=eth0", "'eth0' is none"),
        ("tcp:4000:127.0.0.1:50:9", "has more than tcp takes"),
        ("unix:gw.sock", "begins with /"),
        ("systemd:domain=INET", "needs an index"),
        ("tcp:4000\\", "backslash"),
        ("", "is no endpoint"),
    ],
)
def test_what_is_no_endpoint(text: str, says: str) -> None:
    """
    What cannot be listened on is refused with what was probably meant.
    """
    with pytest.raises(BadEndpoint) as bad:
        read_endpoint(text)
    assert says in str(bad.value)


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("tcp:1", False),
        ("tcp:1:interface=127.0.0.2", True),
        (r"tcp:1:interface=\:\:1", True),
        ("tcp:1:interface=localhost", True),
        ("tcp:1:interface=0.0.0.0", False),
        ("tcp:1:interface=10.0.0.1", False),
        ("unix:/a", True),
        ("systemd:name=a", False),
    ],
)
def test_loopback(text: str, loopback: bool) -> None:
    """
    Only what other machines surely cannot reach counts as loopback.
    """
    assert read_endpoint(text).loopback is loopback


def test_collisions() -> None:
    """
    The same port on overlapping interfaces collides; port 0 never does.
    """
    everywhere = read_endpoint("tcp:4000")
    assert everywhere.collides(read_endpoint("tcp:4000:interface=127.0.0.1"))
    assert not everywhere.collides(read_endpoint("tcp:4001"))
    assert not Endpoint("tcp").collides(Endpoint("tcp"))
    one, other = (read_endpoint(f"tcp:4000:interface=127.0.0.{last}") for last in (1, 2))
    assert not one.collides(other)
    assert read_endpoint("unix:/a").collides(read_endpoint("unix:/a"))

"""
Who the client is, whatever is said about it.
"""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import address as address_module
from gateway.core.address import AddressRule, group, plain_address
from gateway.core.message import Header, RequestHead

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
RULE = AddressRule(TRUSTED)


def head(*headers: Header) -> RequestHead:
    return RequestHead(b"GET", b"/", list(headers), {name.lower(): value for name, value in headers})


def lines(block: bytes) -> dict[str, str]:
    pairs = [(line.partition(": ")[0], line.partition(": ")[2]) for line in block.decode().split("\r\n")[:-1]]
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)


def test_untrusted_peer_is_the_client() -> None:
    """
    What a peer that is not trusted says of others is dropped, and all is stated afresh.
    """
    said = head(
        (b"Host", b"api.example:8443"),
        (b"X-Forwarded-For", b"1.1.1.1"),
        (b"X-Forwarded-Proto", b"http"),
        (b"X-Forwarded-Host", b"evil"),
        (b"X-Forwarded-Port", b"1"),
    )
    client = RULE.client("203.0.113.9", True, said)
    assert (client.host, client.scheme, client.trusted) == ("203.0.113.9", "https", False)
    assert lines(client.forwarded) == {
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "api.example:8443",
        "X-Forwarded-Port": "8443",
    }


@pytest.mark.parametrize(
    ("said", "host", "chain"),
    [
        ([], "10.0.0.1", "10.0.0.1"),
        (["203.0.113.9"], "203.0.113.9", "203.0.113.9, 10.0.0.1"),
        (["6.6.6.6, 203.0.113.9"], "203.0.113.9", "203.0.113.9, 10.0.0.1"),
        (["203.0.113.9, 10.2.2.2"], "203.0.113.9", "203.0.113.9, 10.2.2.2, 10.0.0.1"),
        (["203.0.113.9", "10.2.2.2"], "203.0.113.9", "203.0.113.9, 10.2.2.2, 10.0.0.1"),
        (["10.3.3.3, 10.2.2.2"], "10.3.3.3", "10.3.3.3, 10.2.2.2, 10.0.0.1"),
        (["203.0.113.9, junk"], "10.0.0.1", "10.0.0.1"),
        (["203.0.113.9, junk, 10.2.2.2"], "10.2.2.2", "10.2.2.2, 10.0.0.1"),
        (["203.0.113.9, , 10.2.2.2"], "10.2.2.2", "10.2.2.2, 10.0.0.1"),
        (["unknown"], "10.0.0.1", "10.0.0.1"),
        ([""], "10.0.0.1", "10.0.0.1"),
        (["203.0.113.9:4711"], "203.0.113.9", "203.0.113.9, 10.0.0.1"),
        (["203.0.113.9:x"], "10.0.0.1", "10.0.0.1"),
        (["203.0.113.09"], "10.0.0.1", "10.0.0.1"),
        (["0x7f.1"], "10.0.0.1", "10.0.0.1"),
        (["2001:DB8:0::1"], "2001:db8::1", "2001:db8::1, 10.0.0.1"),
        (["[2001:db8::1]"], "2001:db8::1", "2001:db8::1, 10.0.0.1"),
        (["[2001:db8::1]:4711"], "2001:db8::1", "2001:db8::1, 10.0.0.1"),
        (["[2001:db8::1]x"], "10.0.0.1", "10.0.0.1"),
        (["[203.0.113.9]"], "10.0.0.1", "10.0.0.1"),
        (["[2001:db8::1"], "10.0.0.1", "10.0.0.1"),
        (["fe80::1%eth0"], "10.0.0.1", "10.0.0.1"),
        (["::ffff:203.0.113.9"], "203.0.113.9", "203.0.113.9, 10.0.0.1"),
        (["203.0.113.9, ::ffff:10.2.2.2"], "203.0.113.9", "203.0.113.9, 10.2.2.2, 10.0.0.1"),
        (["203.0.113.9, fd00::2"], "203.0.113.9", "203.0.113.9, fd00::2, 10.0.0.1"),
        (["127.0.0.1"], "127.0.0.1", "127.0.0.1, 10.0.0.1"),
        (['"203.0.113.9"'], "10.0.0.1", "10.0.0.1"),
        (["\xff"], "10.0.0.1", "10.0.0.1"),
    ],
)
def test_chain_is_walked_from_the_right(said: list[str], host: str, chain: str) -> None:
    """
    Trusted proxies are skipped, the first other address is the client, what cannot be read ends the walk.
    """
    client = RULE.client("10.0.0.1", False, head(*[(b"X-Forwarded-For", value.encode("latin-1")) for value in said]))
    assert (client.host, lines(client.forwarded)["X-Forwarded-For"]) == (host, chain)
    assert client.trusted


def test_chain_has_an_end() -> None:
    """
    However long the list, only so many elements are looked at.
    """
    client = RULE.client("10.0.0.1", False, head((b"X-Forwarded-For", b"10.0.0.2, " * 5000 + b"10.0.0.3")))
    assert client.host == "10.0.0.2"
    assert len(client.forwarded) < 1000


@pytest.mark.parametrize(
    ("headers", "scheme", "host", "port"),
    [
        ([(b"Host", b"a")], "http", "a", "80"),
        ([(b"Host", b"a"), (b"X-Forwarded-Proto", b"https")], "https", "a", "443"),
        ([(b"Host", b"a"), (b"X-Forwarded-Proto", b"HTTPS")], "https", "a", "443"),
        ([(b"Host", b"a"), (b"X-Forwarded-Proto", b"https,http")], "http", "a", "80"),
        ([(b"Host", b"a"), (b"X-Forwarded-Proto", b"https"), (b"X-Forwarded-Proto", b"http")], "http", "a", "80"),
        ([(b"Host", b"a"), (b"X-Forwarded-Proto", b"gopher")], "http", "a", "80"),
        ([(b"Host", b"a"), (b"X-Forwarded-Host", b"b:99")], "http", "b:99", "99"),
        ([(b"Host", b"a:1"), (b"X-Forwarded-Port", b"77")], "http", "a:1", "77"),
        ([(b"Host", b"a:1"), (b"X-Forwarded-Port", b"77777")], "http", "a:1", "1"),
        ([(b"Host", b"a:1"), (b"X-Forwarded-Port", b"x")], "http", "a:1", "1"),
        ([(b"Host", b"a"), (b"X-Forwarded-Host", b"b@c/d")], "http", "a", "80"),
        ([(b"Host", b"[2001:db8::1]:81")], "http", "[2001:db8::1]:81", "81"),
    ],
)
def test_trusted_proxy_tells_scheme_host_and_port(headers: list[Header], scheme: str, host: str, port: str) -> None:
    """
    A trusted proxy is believed where it says one thing clearly, else the connection's own facts hold.
    """
    client = RULE.client("10.0.0.1", False, head(*headers))
    told = lines(client.forwarded)
    assert (client.scheme, told["X-Forwarded-Proto"]) == (scheme, scheme)
    assert (told["X-Forwarded-Host"], told["X-Forwarded-Port"]) == (host, port)


def test_same_words_of_the_same_peer_are_remembered() -> None:
    """
    Remembering a client does not mix it up with one of which something else was said.
    """
    rule = AddressRule(TRUSTED)
    first = head((b"Host", b"a"), (b"X-Forwarded-For", b"1.1.1.1"))
    second = head((b"Host", b"a"), (b"X-Forwarded-For", b"2.2.2.2"))
    third = head((b"Host", b"a"), (b"X-Forwarded-For", b"1.1.1.1"), (b"X-Forwarded-Proto", b"https"))
    assert rule.client("10.0.0.1", False, first) is rule.client("10.0.0.1", False, first)
    assert rule.client("10.0.0.1", False, second).host == "2.2.2.2"
    assert rule.client("10.0.0.1", False, third).scheme == "https"
    assert rule.client("10.0.0.1", True, first).scheme == "https"
    assert rule.client("192.0.2.1", False, first).host == "192.0.2.1"
    assert rule.client("192.0.2.1", False, head((b"Host", b"b"))).forwarded.count(b"Host: b\r\n") == 1


def test_memory_of_clients_is_bounded() -> None:
    """
    Ever new hosts in the Host header fill no memory.
    """
    rule = AddressRule(TRUSTED)
    for number in range(address_module._CACHE_SIZE + 100):
        rule.client("192.0.2.1", False, head((b"Host", b"h%d" % number)))
    rule.client("192.0.2.1", False, head((b"Host", b"h" * 300)))
    assert len(rule._cache) <= address_module._CACHE_SIZE
    assert not any(b"h" * 300 in key for key in rule._cache)


@pytest.mark.parametrize(("networks", "trusted"), [([], False), (["10.0.0.0/8"], False), (["127.0.0.0/8"], True)])
def test_unix_peer_is_trusted_like_loopback(networks: list[str], trusted: bool) -> None:
    """
    A peer on a unix socket is a process of this machine: believed exactly if 127.0.0.1 is.
    """
    rule = AddressRule(tuple(ip_network(network) for network in networks))
    client = rule.client("unix", False, head((b"X-Forwarded-For", b"203.0.113.9")))
    assert client.trusted is trusted
    assert client.host == ("203.0.113.9" if trusted else "unix")
    chain = "203.0.113.9, 127.0.0.1" if trusted else "127.0.0.1"
    assert lines(client.forwarded)["X-Forwarded-For"] == chain


def test_forwarded_is_written_on_demand() -> None:
    """
    RFC 7239's header says the same, with IPv6 in quotes.
    """
    rule = AddressRule(TRUSTED, standard=True)
    client = rule.client("10.0.0.1", True, head((b"Host", b"a:1"), (b"X-Forwarded-For", b"2001:db8::1")))
    assert lines(client.forwarded)["Forwarded"] == 'for="[2001:db8::1]";proto=https;host="a:1", for=10.0.0.1'


def test_odd_host_is_not_passed_on() -> None:
    """
    A Host that is none is left out rather than copied.
    """
    client = RULE.client("192.0.2.1", False, head((b"Host", b'a"\tb')))
    assert b"X-Forwarded-Host" not in client.forwarded
    assert b"X-Forwarded-Host" not in RULE.client("192.0.2.1", False, head()).forwarded


@pytest.mark.parametrize(
    ("host", "grouped"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix", "unix"),
    ],
)
def test_limits_count_a_64_as_one(host: str, grouped: str) -> None:
    """
    All addresses of an IPv6 /64 are one to a limit; an IPv4 address is itself.
    """
    assert group(host) == grouped


@pytest.mark.parametrize(
    ("peer", "host"), [("::ffff:192.0.2.1", "192.0.2.1"), ("2001:DB8::0", "2001:db8::"), ("fe80::1%2", "fe80::1")]
)
def test_peers_are_written_one_way(peer: str, host: str) -> None:
    """
    A peer's address has one spelling, so that limits and logs agree.
    """
    assert RULE.client(peer, False, head()).host == host


@given(st.ip_addresses())
def test_every_address_has_one_spelling(address: object) -> None:
    """
    An address written as text is read as itself, and what comes out is written the same way again.
    """
    text = plain_address(str(address))
    assert text is not None
    assert plain_address(text) == text


@given(st.lists(st.binary(max_size=20), max_size=5), st.sampled_from(["10.0.0.1", "192.0.2.1", "unix", "fd00::1"]))
def test_any_chain_is_read(values: list[bytes], peer: str) -> None:
    """
    Whatever stands in X-Forwarded-For, there is a client, and its header has no line of its own making.
    """
    client = RULE.client(peer, False, head((b"Host", b"h"), *[(b"X-Forwarded-For", value) for value in values]))
    assert client.host == "unix" or plain_address(client.host) == client.host
    assert client.forwarded.count(b"\r\n") == 4

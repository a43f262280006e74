"""
Addresses and ids of people, as they are written down.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.privacy import WHOLE, Privacy

KEY = b"correct-horse-battery-staple"


@pytest.mark.parametrize(
    ("address", "short"),
    [
        ("203.0.113.77", "203.0.113.0/24"),
        ("::ffff:203.0.113.77", "203.0.113.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
        ("unix", "unix"),
        ("", ""),
    ],
)
def test_an_address_is_shortened_to_its_network(address: str, short: str) -> None:
    """
    What is left names a network; what is no address says nothing of a person and stays.
    """
    assert Privacy("short").address(address) == short
    assert WHOLE.address(address) == address


@given(st.ip_addresses())
def test_a_short_address_is_a_network_with_the_address_in_it(address: object) -> None:
    """
    Everyone of one network is written alike.
    """
    short = ip_network(Privacy("short").address(str(address)))
    mapped = getattr(address, "ipv4_mapped", None)
    assert ip_address(str(mapped or address)) in short


@given(st.text(min_size=1))
def test_a_hash_is_the_same_for_the_same_key_only(user: str) -> None:
    """
    Who has the key can say who is meant, nobody else; a user and an address are hashed apart.
    """
    privacy = Privacy("hash", "hash", KEY)
    written = privacy.user(user)
    assert len(written) == 24
    assert written == Privacy("hash", "hash", KEY).user(user) != Privacy("hash", "hash", KEY + b"2").user(user)


def test_users_and_addresses_are_hashed_apart() -> None:
    """
    A user who is called like an address is not its client.
    """
    privacy = Privacy("hash", "hash", KEY)
    assert privacy.user("203.0.113.77") != privacy.address("203.0.113.77") == privacy.address("::ffff:203.0.113.77")
    assert privacy.user("") == ""

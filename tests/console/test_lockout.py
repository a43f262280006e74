"""
Who has failed too often.
"""

from __future__ import annotations

from twisted.internet.task import Clock

from gateway.console.lockout import ANY, MOST, Lockout


def lockout(clock: Clock, tries: int = 3) -> Lockout:
    """One that forgets after a minute."""
    return Lockout(tries, 60.0, clock.seconds)


def test_a_pair_of_address_and_user() -> None:
    """
    So many failures, and the address is not heard for that user; for others it is, and so is the user from elsewhere.
    """
    clock = Clock()
    door = lockout(clock)
    for _ in range(3):
        assert not door.locked("192.0.2.1", "anna")
        door.failed("192.0.2.1", "anna")
    assert door.locked("192.0.2.1", "anna")
    assert not door.locked("192.0.2.1", "otto")
    assert not door.locked("192.0.2.2", "anna")
    clock.advance(60)
    assert not door.locked("192.0.2.1", "anna")


def test_an_address_for_all_users() -> None:
    """
    Who tries many names fails for all of them, also from other addresses of its IPv6 network, and also if one was right.
    """
    door = lockout(Clock())
    for number in range(3 * ANY):
        assert not door.locked("2001:db8::1", f"user{number}")
        door.failed(f"2001:db8::{number:x}", f"user{number}")
    door.succeeded("2001:db8::1", "user0")
    assert door.locked("2001:db8::ffff", "anna")
    assert not door.locked("2001:db8:0:1::1", "anna")


def test_memory_is_bounded() -> None:
    """
    However many try, so many are remembered, the newest ones.
    """
    door = lockout(Clock(), tries=1)
    for number in range(2 * MOST):
        door.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "anna")
    assert len(door._failed) <= MOST
    last = 2 * MOST - 1
    assert door.locked(f"10.{last >> 16}.{last >> 8 & 255}.{last & 255}", "anna")

"""
Slots and who has them: the rules of the specification, without a server.
"""

import pytest

from gateway.redis.keys import Keys
from gateway.redis.slots import SLOTS, Claim, SlotMap, read_claims, redirected, slot_of

A, B, C = ("a", 1), ("b", 2), ("c", 3)


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        # From the specification, and as a server computes them.
        ("123456789", 0x31C3),
        ("foo", 12182),
        ("{user1000}.following", 3443),
        ("{user1000}.followers", 3443),
        ("foo{}{bar}", 8363),
        ("foo{{bar}}zap", 4015),
        ("foo{bar}{zap}", 5061),
        ("", 0),
    ],
)
def test_slots(key: str, slot: int) -> None:
    """
    The first tag decides, if it is one; else the whole key.
    """
    assert slot_of(key) == slot


def test_what_a_script_touches_is_together() -> None:
    """
    Keys of a channel share a slot whatever its name, and so do those of a partition.
    """
    keys = Keys("gateway")
    for channel in ("room", "a{b", "}a{b}", "{}", "", "{a}b"):
        assert len({slot_of(keys.channel(kind, channel)) for kind in "mst"}) == 1
    assert len({slot_of(keys.partition(kind, 7)) for kind in ("sessions", "held")}) == 1
    assert len({slot_of(keys.partition("sessions", number)) for number in range(64)}) > 60


NODES = b"""\
aa 127.0.0.1:7001@17001 myself,master - 0 0 3 connected 0-99 [99->-bb]
bb 127.0.0.1:7002@17002,name master,fail? - 0 0 12 connected 100-16383
cc 127.0.0.1:7003@17003 slave aa 0 0 3 connected
"""
REPLICA = [b"127.0.0.1", 7003, b"cc", []]


def test_reading_claims() -> None:
    """
    Masters of ranges are read, each with its epoch; one that does not know its own name is where it was asked.
    """
    slots = [[0, 99, [b"", 7001, b"aa", []], REPLICA], [100, 16383, [b"name", 7002, b"bb", [b"ip", b"127.0.0.1"]]]]
    assert read_claims(slots, NODES, "seed") == [
        Claim(0, 99, ("seed", 7001), 3),
        Claim(100, 16383, ("name", 7002), 12),
    ]


@pytest.mark.parametrize("slots", [[1], [[0, 1]], [[0, 1, None]], [[0, 1, [b"h", b"x", b"id"]]]])
def test_claims_that_cannot_be_read(slots: list[object]) -> None:
    """
    An answer that is none fails with an error that is expected.
    """
    with pytest.raises((ValueError, LookupError, TypeError)):
        read_claims(slots, NODES, "seed")


def test_redirections() -> None:
    """
    Slot and address are read from the end of a refusal, also of IPv6, and without a host.
    """
    assert redirected("Redis refuses: MOVED 3999 127.0.0.1:6381", "h") == (3999, ("127.0.0.1", 6381))
    assert redirected("Redis refuses: ASK 1 2001:db8::1:6381", "h") == (1, ("2001:db8::1", 6381))
    assert redirected("Redis refuses: MOVED 1 :6381", "h") == (1, ("h", 6381))
    with pytest.raises(ValueError):
        redirected("Redis refuses: MOVED", "h")


def test_the_newer_claim_counts() -> None:
    """
    Of nodes that disagree the newer epoch has the slot, whoever answers first; nobody's word of before counts.
    """
    slots = SlotMap()
    old = [Claim(0, SLOTS - 1, A, 1)]
    new = [Claim(0, 9, A, 1), Claim(10, 20, B, 2), Claim(21, SLOTS - 1, A, 1)]
    for answers in ([old, new], [new, old]):
        slots.take(answers)
        assert [slots.owner(slot) for slot in (0, 10, 20, 21)] == [A, B, B, A]
        assert set(slots.masters) == {A, B}
        assert slots.complete
    assert not slots.take([new])
    assert slots.take([old]) == set(range(10, 21))
    assert set(slots.masters) == {A}


def test_a_slot_that_moved() -> None:
    """
    A redirection counts at once; a slot that nobody has leaves the map incomplete.
    """
    slots = SlotMap()
    assert not slots.complete
    slots.take([[Claim(0, SLOTS - 1, A, 1)]])
    assert slots.move(7, C)
    assert not slots.move(7, C)
    assert slots.owner(7) == C
    assert set(slots.masters) == {A, C}
    slots.take([[Claim(0, 5, A, 1)]])
    assert not slots.complete
    assert slots.owner(7) is None

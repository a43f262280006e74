"""
Limits of real-time clients: messages, commands, coming in; what they are told, and when it ends.
"""

from collections.abc import Sequence
from typing import Any

from tests.realtime.house import BASE, House
from twisted.internet.defer import Deferred

from gateway.memory.limits import MemoryLimiter
from gateway.node.acts import Limits
from gateway.ports.limits import Charge, Told

RULES = """
[channels."chat:{room}"]
subscribe = "authenticated"
publish = "authenticated"
[channels."free:{room}"]
subscribe = "authenticated"
publish = "authenticated"

[rpc.echo]
echo = true
"""


def limited(policies: str, **more: Any) -> House:
    return House(RULES + policies, {}, base=BASE, **more)


def done(coroutine: Any) -> Any:
    """What *coroutine* returns, now."""
    results: list[Any] = []
    Deferred.fromCoroutine(coroutine).addCallbacks(results.append, lambda failure: failure.raiseException())
    return results[0]


def said(reply: Any) -> Any:
    return reply["error"]["code"], reply["error"].get("temporary"), reply["error"]["message"]


def test_messages_of_a_user() -> None:
    """
    A user's messages over all connections and instances share one budget; each too many is told the wait, and runs later.
    """
    house = limited('[limits.policy.frames]\nrate = "10/s"\nburst = 4\nkey = "user"\non = "frames"\n')
    other = house.add()
    alice, elsewhere, bob = house.connected("alice"), house.connected("alice", node=other), house.connected("bob")
    for _ in range(2):
        assert "rpc" in alice.reply(rpc={"method": "echo"})
    # What each instance let pass it hears of the other a moment later.
    for _ in range(2):
        assert "rpc" in elsewhere.reply(rpc={"method": "echo"})
    assert said(elsewhere.reply(rpc={"method": "echo"})) == (111, True, "too many requests; retry_after_ms=100")
    assert "rpc" in bob.reply(rpc={"method": "echo"})
    house.clock.advance(0.11)
    assert "rpc" in alice.reply(rpc={"method": "echo"})
    assert house.decisions.value("frames", "refused", "redis") >= 1


def test_who_does_not_listen() -> None:
    """
    A connection that goes on although it was told to wait is closed with 3013, from where clients reconnect.
    """
    house = limited(
        '[limits]\nunheeded = 5\n[limits.policy.c]\nrate = "1/m"\nkey = "user"\non = "commands"\nshared = false\n'
    )
    alice = house.connected("alice")
    assert "rpc" in alice.reply(rpc={"method": "echo"})
    for _ in range(5):
        code, temporary, text = said(alice.reply(rpc={"method": "echo"}))
        assert (code, temporary) == (111, True)
        assert text.startswith("too many requests; retry_after_ms=60000")
    assert alice.wire.closed is None
    alice.ask(rpc={"method": "echo"})
    assert alice.wire.closed == (3013, "too many requests")


def test_being_told_is_forgiven() -> None:
    """
    Who asks again once a second only goes on being told; what is no command is refused without a word.
    """
    house = limited('[limits]\nunheeded = 2\n[limits.policy.c]\nrate = "1/m"\nkey = "user"\non = "frames"\n')
    alice = house.connected("alice")
    alice.reply(rpc={"method": "echo"})
    for _ in range(10):
        house.clock.advance(1.0)
        assert said(alice.reply(rpc={"method": "echo"}))[0] == 111
    alice.say({"send": {"data": {}}})
    assert alice.told() == []
    assert alice.wire.closed is None


def test_commands_on_channels() -> None:
    """
    A policy counts the commands, channels and methods that it names; others are free, and so is asking for less.
    """
    house = limited(
        '[limits.policy.chat]\nrate = "1/m"\nkey = ["user", "channel"]\non = "commands"\ncommands = "publish"\n'
        'channels = "chat:{room}"\n'
        '[limits.policy.echo]\nrate = "2/m"\nkey = "user"\non = "commands"\nmethods = "ec*"\n'
    )
    alice, bob = house.connected("alice"), house.connected("bob")
    for person in (alice, bob):
        for room in ("a", "b"):
            assert "publish" in person.reply(publish={"channel": f"chat:{room}", "data": 1})
            assert said(person.reply(publish={"channel": f"chat:{room}", "data": 1}))[0] == 111
        assert "publish" in person.reply(publish={"channel": "free:a", "data": 1})
        assert "subscribe" in person.reply(subscribe={"channel": "chat:a"})
        assert "unsubscribe" in person.reply(unsubscribe={"channel": "chat:a"})
    assert ["error" in alice.reply(rpc={"method": "echo"}) for _ in range(3)] == [False, False, True]


class Slow:
    """A limiter whose store answers when it is told to."""

    def __init__(self, real: MemoryLimiter) -> None:
        self.real = real
        self.asked: list[tuple[Told, Sequence[Charge]]] = []

    def spend(self, charges: Sequence[Charge], told: Told) -> None:
        self.asked.append((told, charges))

    def answer(self) -> None:
        asked, self.asked = self.asked, []
        for told, charges in asked:
            told(self.real.spend(charges, told))

    async def forget(self, charges: Sequence[Charge]) -> None:
        await self.real.forget(charges)


def test_commands_wait_for_their_verdict() -> None:
    """
    Commands wait for the store, in their order and in one step for all policies; those that are refused do not run.
    """
    house = limited(
        '[limits.policy.one]\nrate = "2/m"\nkey = "user"\non = "commands"\n'
        '[limits.policy.two]\nrate = "9/m"\nkey = []\non = "commands"\n'
    )
    slow = Slow(house.limiter)
    house.node.rates._shared = slow
    alice = house.connected("alice")
    numbers = [alice.ask(publish={"channel": "free:a", "data": number}) for number in range(3)]
    assert alice.told() == []
    assert [len(charges) for _, charges in slow.asked] == [2], "the others wait for the first"
    for _ in range(3):
        slow.answer()
    told = alice.told()
    assert [message["id"] for message in told] == numbers
    assert ["error" in message for message in told] == [False, False, True]


def test_coming_in() -> None:
    """
    A user who comes too often is told so in the reply to connect, and may try again later on the same connection.
    """
    house = limited('[limits.policy.c]\nrate = "1/m"\nburst = 2\nkey = "user"\non = "connect"\n')
    for _ in range(2):
        house.connected("alice")
    late = house.come()
    assert said(late.reply(connect={"token": "alice"}))[:2] == (111, True)
    house.connected("bob")
    house.clock.advance(4.0)
    assert said(late.reply(connect={"token": "alice"}))[:2] == (111, True)


def test_failures_count_against_the_address() -> None:
    """
    Whoever shows bad tokens in a row is not looked at any more from that address, good token or not, until it is over.
    """
    house = limited('[limits.policy.f]\nrate = "1/s"\nburst = 3\non = "auth_failures"\n')
    for _ in range(3):
        guest = house.come()
        guest.ask(connect={"token": "bad"})
        assert guest.wire.closed is not None
        assert guest.wire.closed[0] == 3500
    alice = house.come()
    assert said(alice.reply(connect={"token": "alice"}))[0] == 111
    house.clock.advance(1.01)
    assert "connect" in alice.reply(connect={"token": "alice"})


def test_budgets_told_and_given_back() -> None:
    """
    Support is told how a user's and an address's budgets stand on every instance, and gives them back everywhere.
    """
    house = limited(
        '[limits.policy.user]\nrate = "2/m"\nkey = "user"\non = "commands"\n'
        '[limits.policy.here]\nrate = "2/m"\nkey = "user"\non = "commands"\nshared = false\n'
        '[limits.policy.address]\nrate = "5/m"\non = "requests"\n'
        '[limits.policy.f]\nrate = "1/m"\non = "auth_failures"\n'
    )
    other = house.add()
    alice, elsewhere = house.connected("alice"), house.connected("alice", node=other)
    assert "rpc" in alice.reply(rpc={"method": "echo"})
    assert "rpc" in elsewhere.reply(rpc={"method": "echo"})
    assert said(alice.reply(rpc={"method": "echo"}))[0] == 111
    told = done(house.node.cluster.do(Limits(who="alice")))
    assert told.silent == ()
    left = [{each["policy"]: each["remaining"] for each in of["budgets"]} for of in told.values.values()]
    assert left == [{"user": 0, "here": 0}, {"user": 0, "here": 1}]
    [mine, _] = told.values.values()
    assert mine["budgets"][0]["most"] == 2
    assert 0 < mine["budgets"][0]["retry_after_s"] <= 30
    done(house.node.cluster.do(Limits(who="alice", reset=True)))
    for person in (alice, elsewhere):
        assert "rpc" in person.reply(rpc={"method": "echo"})
    bad = house.come()
    bad.ask(connect={"token": "bad"})
    assert said(house.come().reply(connect={"token": "bob"}))[0] == 111
    [of, _] = done(house.node.cluster.do(Limits(who="192.0.2.1"))).values.values()
    assert [(each["policy"], each["blocked_s"] > 0) for each in of["budgets"]] == [
        ("user", False),
        ("here", False),
        ("address", False),
        ("f", True),
    ]
    done(house.node.cluster.do(Limits(who="192.0.2.1", reset=True)))
    assert "connect" in house.come().reply(connect={"token": "bob"})

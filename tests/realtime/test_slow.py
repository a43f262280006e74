"""
Clients that read slowly or not at all: bounded, and nobody else's affair.
"""

import random

from tests.realtime.house import BASE, House

RULES = """
[channels.events]
subscribe = "authenticated"
history = { size = 100, ttl = "5m" }
coalesce = "0s"
[channels.state]
subscribe = "authenticated"
overflow = "latest"
coalesce = "0s"
[channels.typing]
subscribe = "authenticated"
overflow = "drop"
coalesce = "0s"
[rpc.echo]
echo = true
"""

SMALL = BASE + 'outbox = "20KiB"\nping = "1h"\n'


def test_a_reader_that_stops_is_closed_at_the_limit_and_others_hear_everything() -> None:
    """
    R28: code 3008, with which SDKs come back; what it may hold is bounded.
    """
    house = House(RULES, base=SMALL)
    slow, quick = house.come(), house.connected("bob")
    slow.ask(connect={"token": "alice"})
    for person in (slow, quick):
        person.reply(subscribe={"channel": "events"})
    slow.wire.takes = 1000
    held = 0
    for number in range(500):
        house.publish("events", {"n": number, "pad": "x" * 200})
        held = max(held, slow.side.outbox.bytes + len(slow.wire.buffered))
    assert slow.wire.closed == (3008, "slow")
    assert held <= 20 * 1024 + 64 * 1024
    assert [push["pub"]["data"]["n"] for push in quick.pushes()] == list(range(500))


def test_latest_keeps_only_the_newest_for_a_slow_reader() -> None:
    """
    R29: it is never closed for it, and sees the newest state when it reads again.
    """
    house = House(RULES, base=SMALL)
    slow = house.connected()
    slow.reply(subscribe={"channel": "state"})
    slow.wire.takes = 100
    for number in range(1000):
        house.publish("state", {"n": number, "pad": "x" * 200})
    assert slow.wire.closed is None
    slow.wire.read()
    seen = [push["pub"]["data"]["n"] for push in slow.pushes()]
    assert seen[-1] == 999
    assert len(seen) < 10
    house.publish("state", {"n": 1000})
    assert [push["pub"]["data"]["n"] for push in slow.pushes()] == [1000]


def test_drop_tells_how_many_were_left_out() -> None:
    """
    R29: a message counts the gap, and what was sent together with the count is all there was.
    """
    house = House(RULES, base=SMALL)
    slow = house.connected()
    slow.reply(subscribe={"channel": "typing"})
    slow.wire.takes = 100
    for number in range(1000):
        house.publish("typing", {"n": number, "pad": "x" * 200})
    assert slow.wire.closed is None
    slow.wire.read()
    pushes = slow.pushes()
    heard = sum("pub" in push for push in pushes)
    [notice] = [push["message"]["data"] for push in pushes if "message" in push]
    assert notice == {"dropped": {"channel": "typing", "count": 1000 - heard}}


def test_a_frame_is_never_torn_whatever_the_kernel_takes() -> None:
    """
    A reader that takes a random number of bytes each time gets exactly the stream, in order, each message once.
    """
    for seed in range(30):
        chance = random.Random(seed)
        house = House(RULES, base=BASE + 'ping = "1h"\n')
        people = [house.connected(f"p{number}") for number in range(3)]
        for person in people:
            person.reply(subscribe={"channel": "events"})
        for number in range(150):
            for person in people:
                if chance.random() < 0.3:
                    person.wire.takes = chance.randint(0, 300)
                elif chance.random() < 0.4:
                    person.wire.read(chance.choice([None, chance.randint(0, 2000)]))
            house.publish("events", {"n": number, "pad": "x" * chance.randint(0, 100)})
            if chance.random() < 0.2:
                person = chance.choice(people)
                person.ask(rpc={"method": "echo", "data": number})
        for person in people:
            person.wire.read()
            told = person.told()
            assert [message["push"]["pub"]["data"]["n"] for message in told if "push" in message] == list(range(150))
            numbers = [message["id"] for message in told if "id" in message]
            assert numbers == sorted(numbers)


def test_a_slow_reader_is_sent_to_directly_again_once_it_has_caught_up() -> None:
    """
    Being slow once does not make every later delivery slower.
    """
    house = House(RULES, base=SMALL)
    alice = house.connected()
    alice.reply(subscribe={"channel": "events"})
    [room] = house.node.hub.rooms.values()
    [group] = room.groups.values()
    assert len(group.direct) == 1
    alice.wire.takes = 10
    house.publish("events", 1)
    assert not group.direct
    assert len(group.queued) == 1
    house.publish("events", 2)
    alice.wire.read()
    assert len(group.direct) == 1
    assert [push["pub"]["data"] for push in alice.pushes()] == [1, 2]


def test_a_reader_that_is_too_slow_for_its_own_replies_is_closed() -> None:
    """
    Replies are never dropped: beyond the limit the connection is.
    """
    house = House(RULES, base=SMALL)
    alice = house.connected()
    alice.wire.takes = 0
    for _ in range(100):
        alice.ask(rpc={"method": "echo", "data": "x" * 1000})
        if alice.wire.closed:
            break
    assert alice.wire.closed == (3008, "slow")


def test_a_client_closed_in_the_middle_of_a_fan_out_does_not_disturb_the_rest() -> None:
    """
    Many slow ones end during the same publication; everybody else gets it.
    """
    house = House(RULES, base=BASE + 'outbox = "1KiB"\nping = "1h"\n')
    people = [house.connected(f"p{number}") for number in range(50)]
    for person in people:
        person.reply(subscribe={"channel": "events"})
    for person in people[::2]:
        person.wire.takes = 0
    for number in range(20):
        house.publish("events", {"n": number, "pad": "x" * 100})
    assert {person.wire.closed for person in people[::2]} == {(3008, "slow")}
    for person in people[1::2]:
        assert len(person.pushes()) == 20

"""
What every broker promises.
"""

import pytest
import pytest_twisted
from tests.contract.conftest import REMEMBER_S, Brokers, Hearing
from twisted.internet.defer import ensureDeferred, gatherResults

from gateway.core.publications import ClientInfo, Position, PublishOptions

KEEP = PublishOptions(history_size=3, history_ttl_s=60, timed=True)
ALICE = ClientInfo("alice", "c1", b'{"a":1}', b"")


@pytest_twisted.ensureDeferred
async def test_every_node_that_hears_is_told(brokers: Brokers) -> None:
    """
    A publication reaches each subscribed node once, with the same position, and no other node.
    """
    one, two = Hearing(), Hearing()
    brokers.one.listen(one)
    brokers.two.listen(two)
    await brokers.one.subscribe("lobby")
    await brokers.two.subscribe("lobby")
    await brokers.two.subscribe("other")
    published = await brokers.one.publish("lobby", b"1", KEEP, info=ALICE, tags={"k": "v"})
    await brokers.settle()
    await brokers.one.unsubscribe("lobby")
    await brokers.one.publish("lobby", b"2", KEEP)
    await brokers.settle()
    assert [(channel, p.data, p.offset) for channel, p, _ in one.publications] == [("lobby", b"1", 1)]
    assert [(channel, p.data, p.offset) for channel, p, _ in two.publications] == [
        ("lobby", b"1", 1),
        ("lobby", b"2", 2),
    ]
    first = two.publications[0][1]
    assert (first.info, first.tags) == (ALICE, {"k": "v"})
    assert first.time_ms > 0
    assert published.position == Position(1, two.publications[0][2])


@pytest_twisted.ensureDeferred
async def test_without_history_there_is_no_offset(brokers: Brokers) -> None:
    """
    A channel without history delivers, but its publications have no place to recover from.
    """
    hearing = Hearing()
    brokers.one.listen(hearing)
    await brokers.one.subscribe("volatile")
    published = await brokers.one.publish("volatile", b"x", PublishOptions())
    await brokers.settle()
    assert hearing.publications[0][1].offset == 0
    assert published.position == Position()
    assert (await brokers.one.history("volatile")).publications == ()


@pytest_twisted.ensureDeferred
async def test_concurrent_publishers_share_one_order(brokers: Brokers) -> None:
    """
    Publications of several publishers on several nodes have gapless offsets, and every node hears the same order.
    """
    one, two = Hearing(), Hearing()
    brokers.one.listen(one)
    brokers.two.listen(two)
    for broker in (brokers.one, brokers.two):
        await broker.subscribe("busy")
    await gatherResults(
        [
            ensureDeferred(broker.publish("busy", b"%d" % number, PublishOptions(1000, 60)))
            for number in range(100)
            for broker in (brokers.one, brokers.two)
        ]
    )
    await brokers.settle()
    heard = [(p.offset, p.data) for _, p, _ in one.publications]
    assert [offset for offset, _ in heard] == list(range(1, 201))
    assert heard == [(p.offset, p.data) for _, p, _ in two.publications]
    kept = await brokers.two.history("busy")
    assert heard == [(p.offset, p.data) for p in kept.publications]


@pytest_twisted.ensureDeferred
async def test_history_reads_what_is_asked(brokers: Brokers) -> None:
    """
    History is bounded by size, starts after a position, counts, goes backwards, and tells the top.
    """
    for number in range(1, 6):
        await brokers.one.publish("table", b"%d" % number, KEEP)

    async def read(**asked: object) -> list[int]:
        found = await brokers.two.history("table", **asked)  # type: ignore[arg-type]  # keywords of the port
        assert found.position.offset == 5
        return [publication.offset for publication in found.publications]

    epoch = (await brokers.one.history("table", limit=0)).position.epoch
    assert await read() == [3, 4, 5]
    assert await read(limit=0) == []
    assert await read(limit=2) == [3, 4]
    assert await read(since=Position(4, epoch)) == [5]
    assert await read(since=Position(5, epoch)) == []
    assert await read(reverse=True, limit=2) == [5, 4]
    assert await read(since=Position(5, epoch), reverse=True) == [4, 3]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("offset", [-5, 0, 1, 4, 10**14 + 1, 2**53 + 1, 2**63, 2**64 - 1, 2**64, 2**70])
async def test_any_position_may_be_asked_from(brokers: Brokers, offset: int, *, reverse: bool) -> None:
    """
    Clients say where they stand: whatever number it is, what lies behind it is answered.
    """
    for number in range(5):
        published = await brokers.one.publish("table", b"%d" % number, KEEP)
    since = Position(offset, published.position.epoch)
    found = await brokers.two.history("table", since=since, reverse=reverse)
    assert found.position == published.position
    wanted = [kept for kept in (3, 4, 5) if (kept < offset if reverse else kept > offset)]
    assert [publication.offset for publication in found.publications] == (wanted[::-1] if reverse else wanted)


@pytest_twisted.ensureDeferred
async def test_history_ends_but_offsets_go_on(brokers: Brokers) -> None:
    """
    After its time a stream is empty, yet its epoch stays and its offset is not used again.
    """
    before = await brokers.one.publish("table", b"1", PublishOptions(history_size=3, history_ttl_s=0.2))
    await brokers.pass_time(0.3)
    assert (await brokers.one.history("table")).publications == ()
    after = await brokers.one.publish("table", b"2", KEEP)
    assert after.position == Position(2, before.position.epoch)


@pytest_twisted.ensureDeferred
async def test_removed_history_cannot_be_recovered(brokers: Brokers) -> None:
    """
    Removing history leaves the top where it was.
    """
    await brokers.one.publish("table", b"1", KEEP)
    await brokers.one.remove_history("table")
    found = await brokers.two.history("table", since=Position(0, ""))
    assert found.publications == ()
    assert found.position.offset == 1


@pytest_twisted.ensureDeferred
async def test_a_stream_nobody_published_to_has_an_epoch(brokers: Brokers) -> None:
    """
    Asking for the position of a new channel gives one to recover from later.
    """
    empty = await brokers.one.history("new", limit=0)
    assert empty.position.epoch
    published = await brokers.one.publish("new", b"1", KEEP)
    assert published.position == Position(1, empty.position.epoch)


@pytest_twisted.ensureDeferred
async def test_a_stream_that_went_back_begins_anew(brokers: Brokers) -> None:
    """
    Who holds a position that the stream has not reached knows that it went back: its epoch ends there, and only then.
    """
    await brokers.one.publish("table", b"1", KEEP)
    published = (await brokers.one.publish("table", b"2", KEEP)).position
    for held in (published, Position(1, published.epoch), Position(9, "another")):
        found = await brokers.two.history("table", since=held, held=held)
        assert found.position == published
    held = Position(3, published.epoch)
    assert (await brokers.two.history("table", since=held)).position == published, "clients may say what they like"
    found = await brokers.two.history("table", since=held, held=held)
    assert (found.publications, found.position.offset, found.position.epoch == held.epoch) == ((), 0, False)
    assert (await brokers.one.publish("table", b"3", KEEP)).position == Position(1, found.position.epoch)
    assert [publication.data for publication in (await brokers.two.history("table")).publications] == [b"3"]


@pytest_twisted.ensureDeferred
async def test_idempotency_key_publishes_once(brokers: Brokers) -> None:
    """
    The same key on any node gives the first position and no second delivery, for its time.
    """
    hearing = Hearing()
    brokers.one.listen(hearing)
    await brokers.one.subscribe("table")
    options = PublishOptions(3, 600, idempotency_key="k")
    first = await brokers.one.publish("table", b"1", options)
    again = await brokers.two.publish("table", b"1", options)
    assert (again.position, again.suppressed) == (first.position, "idempotency")
    await brokers.two.publish("elsewhere", b"1", options)
    await brokers.pass_time(REMEMBER_S + 0.1)
    later = await brokers.two.publish("table", b"1", options)
    assert later.suppressed == ""
    await brokers.settle()
    assert [publication.offset for _, publication, _ in hearing.publications] == [1, 2]


@pytest_twisted.ensureDeferred
async def test_versions_only_rise(brokers: Brokers) -> None:
    """
    A publication with a version not above the last is dropped, until the version epoch changes.
    """
    hearing = Hearing()
    brokers.one.listen(hearing)
    await brokers.one.subscribe("table")

    async def publish(version: int, epoch: str = "a") -> str:
        options = PublishOptions(9, 60, version=version, version_epoch=epoch)
        return (await brokers.two.publish("table", b"%d" % version, options)).suppressed

    assert [await publish(5), await publish(5), await publish(4), await publish(6), await publish(1, "b")] == [
        "",
        "version",
        "version",
        "",
        "",
    ]
    await brokers.settle()
    assert [publication.version for _, publication, _ in hearing.publications] == [5, 6, 1]


@pytest_twisted.ensureDeferred
async def test_versions_may_be_large(brokers: Brokers) -> None:
    """
    Versions of any size are told apart: nanoseconds of the clock and Snowflake ids are some.
    """
    first = 1_830_000_000_000_000_001
    told = []
    for version in (first, first + 1, first, 2**63 - 1, 2**63 - 2):
        options = PublishOptions(9, 60, version=version, version_epoch="ns")
        told.append((await brokers.one.publish("table", b"1", options)).suppressed)
    assert told == ["", "", "version", "", "version"]


@pytest_twisted.ensureDeferred
async def test_channels_that_are_heard(brokers: Brokers) -> None:
    """
    Channels are listed while some node hears them, and by glob.
    """
    await brokers.one.subscribe("table:1")
    await brokers.two.subscribe("table:1")
    await brokers.two.subscribe("lobby")
    assert dict(await brokers.one.channels()) == {"table:1": 2, "lobby": 1}
    assert dict(await brokers.one.channels("table:*")) == {"table:1": 2}
    await brokers.two.unsubscribe("lobby")
    assert "lobby" not in await brokers.one.channels()


@pytest_twisted.ensureDeferred
async def test_the_tops_of_many(brokers: Brokers) -> None:
    """
    Where many streams stand is told at once, also of those that were never published into.
    """
    first = await brokers.one.publish("table:1", b"1", KEEP)
    await brokers.one.publish("table:2", b"1", KEEP)
    second = await brokers.two.publish("table:2", b"2", KEEP)
    tops = await brokers.two.tops(["table:1", "table:2", "table:3"])
    assert (tops["table:1"], tops["table:2"]) == (first.position, second.position)
    assert tops["table:3"] == (await brokers.one.history("table:3", limit=0)).position


@pytest_twisted.ensureDeferred
async def test_a_long_history_is_read_whole(brokers: Brokers) -> None:
    """
    A stream longer than what is read at once comes whole, in order, both ways.
    """
    keep = PublishOptions(2000, 60)
    await gatherResults([ensureDeferred(brokers.one.publish("long", b"%d" % n, keep)) for n in range(600)])
    offsets = [publication.offset for publication in (await brokers.two.history("long")).publications]
    assert offsets == list(range(1, 601))
    back = (await brokers.two.history("long", reverse=True, limit=500)).publications
    assert [publication.offset for publication in back] == list(range(600, 100, -1))


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("limit", [-1, 45])
async def test_a_history_of_large_publications_is_read_whole(brokers: Brokers, limit: int) -> None:
    """
    What is read at once is bounded by its bytes too, which nobody notices.
    """
    for number in range(50):
        await brokers.one.publish("large", b"%d" % number * 50_000, PublishOptions(100, 60))
    wanted = list(range(1, 51))
    found = await brokers.two.history("large", limit=limit)
    assert [publication.offset for publication in found.publications] == wanted[: limit if limit > 0 else None]
    assert found.publications[44].data == b"44" * 50_000
    back = await brokers.two.history("large", limit=limit, reverse=True)
    assert [publication.offset for publication in back.publications] == wanted[::-1][: limit if limit > 0 else None]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("channel", ["a{b}c", "}", "{}", "x%", "ünï", " ", "a:b:{c"])
async def test_any_name_is_a_channel(brokers: Brokers, channel: str) -> None:
    """
    Whatever stands in a channel's name, it is a channel of its own.
    """
    hearing = Hearing()
    brokers.two.listen(hearing)
    await brokers.two.subscribe(channel)
    published = await brokers.one.publish(channel, b"1", PublishOptions(3, 60, idempotency_key="k"))
    await brokers.settle()
    assert [(name, p.offset) for name, p, _ in hearing.publications] == [(channel, 1)]
    assert dict(await brokers.one.channels()) == {channel: 1}
    assert (await brokers.one.history(channel)).position == published.position

"""
Telling what happened: in order, at least once, and past what cannot be taken.
"""

from tests.events.teller import START, Teller
from tests.telemetry.told import Told

from gateway.core.trace import TraceContext
from gateway.memory.outbox import MemoryOutbox
from gateway.ports.events import Refusal
from gateway.ports.sessions import Event


def users(number: int) -> list[str]:
    return [f"user-{each}" for each in range(number)]


def test_what_happened_is_told_once_and_in_order() -> None:
    """
    Every event is taken once, those of a session in their order, with what the outbox knows of it; then nothing waits.
    """
    teller = Teller(batch=10)
    records = [teller.record(user) for user in users(40)]
    begun = [teller.began(record) for record in records]
    teller.start()
    teller.pass_time(3)
    ended = [teller.ended(record) for record in records]
    teller.pass_time(2)
    taken = teller.taker.taken
    assert sorted(taken) == sorted([*begun, *ended])
    assert all(taken.index(first) < taken.index(last) for first, last in zip(begun, ended, strict=True))
    assert all(len(batch) <= 10 for batch in teller.taker.batches)
    assert teller.waiting() == 0
    body = next(body for body in teller.taker.bodies if body["id"] == ended[0])
    assert body == {
        "id": ended[0],
        "kind": "SESSION_ENDED",
        "session": records[0].id,
        "user": "user-0",
        "at": "2027-01-15T08:00:03.000Z",
        "started_at": "2027-01-15T08:00:00.000Z",
        "ended_at": "2027-01-15T08:00:03.000Z",
        "duration_s": 3.0,
        "resumes": 1,
    }
    assert teller.logged() == []


def test_an_outage_loses_nothing_and_is_told_once() -> None:
    """
    While nobody takes events the pauses grow up to a bound, however often it is tried; afterwards all are taken.
    """
    teller = Teller(retry_max_s=8.0, attempts=2)
    teller.start()
    teller.taker.away = True
    begun = [teller.began(teller.record(user)) for user in users(30)]
    teller.pass_time(600)
    assert 75 <= len(teller.taker.batches) <= 320
    assert teller.waiting() == 30
    teller.taker.away = False
    teller.pass_time(15)
    assert sorted(teller.taker.taken) == sorted(begun)
    assert teller.waiting() == 0
    assert teller.logged() == ["events.untaken", "events.taken_again"]


def test_an_event_that_nobody_takes_holds_up_its_session_alone() -> None:
    """
    Whoever fails because of one event takes all the others; that one is given up after so many attempts, and told.
    """
    for refuses in (True, False):
        teller = Teller(attempts=3, batch=16)
        teller.taker.refuses = refuses
        records = [teller.record(user) for user in users(50)]
        begun = [teller.began(record) for record in records]
        bad = begun[20]
        behind = teller.ended(records[20])
        teller.taker.poison = {bad}
        teller.start()
        teller.pass_time(12)
        assert sorted(teller.taker.taken) == sorted(set(begun) - {bad})
        for number in range(4):
            teller.began(teller.record(f"later-{number}"))
            teller.pass_time(12)
        assert behind in teller.taker.taken
        assert bad not in teller.taker.taken
        assert teller.waiting() == 0
        assert teller.logged().count("event.given_up") == 1
        assert len(set(teller.taker.taken)) == len(teller.taker.taken)


def test_several_that_nobody_takes_hold_up_nobody_else() -> None:
    """
    Though the oldest dozen cannot be told, and whoever is told is silent about it, all others are taken.
    """
    teller = Teller(attempts=3, retry_max_s=2.0)
    bad = [teller.began(teller.record("bad")) for _ in range(12)]
    teller.taker.poison = set(bad)
    good = [teller.began(teller.record(user)) for user in users(60)]
    teller.start()
    teller.pass_time(60)
    assert sorted(teller.taker.taken) == sorted(good)
    for number in range(30):
        teller.began(teller.record(f"later-{number}"))
        teller.pass_time(3)
    assert len(teller.taker.taken) == 90
    assert teller.waiting() == 0


def test_refusals_of_single_events() -> None:
    """
    What is refused for good is given up at once; what may be taken later is told again, and what comes behind it waits.
    """
    teller = Teller(attempts=4)
    records = [teller.record(user) for user in users(3)]
    first, second, third = (teller.began(record) for record in records)
    teller.taker.refusals = {first: Refusal(first, "no", False), second: Refusal(second, "later", True)}
    teller.start()
    last = teller.ended(records[1])
    teller.pass_time(1)
    assert teller.taker.taken == [third]
    teller.taker.refusals = {}
    teller.pass_time(10)
    assert teller.taker.taken == [third, second, last]
    assert teller.waiting() == 0


def test_one_that_is_put_off_for_ever_is_given_up() -> None:
    """
    An event that is always refused «for now» is given up when others were taken often enough.
    """
    teller = Teller(attempts=3)
    bad = teller.began(teller.record("bad"))
    teller.taker.refusals = {bad: Refusal(bad, "later", True)}
    teller.start()
    for number in range(6):
        teller.began(teller.record(f"user-{number}"))
        teller.pass_time(10)
    assert len(teller.taker.taken) == 6
    assert teller.waiting() == 0
    assert teller.logged().count("event.given_up") == 1


def test_two_instances_tell_their_own() -> None:
    """
    Of the same outbox each event is told by one; what one of them leaves behind the other tells when its hold is over.
    """
    one = Teller(name="i1")
    two = Teller(outbox=one.outbox, name="i2")
    two.clock = one.clock
    two.delivery._clock = one.clock
    begun = [one.began(one.record(user)) for user in users(20)]
    one.partitions, two.partitions = range(0, 64, 2), range(1, 64, 2)
    one.start()
    two.start()
    one.pass_time(3)
    assert sorted(one.taker.taken + two.taker.taken) == sorted(begun)
    one.taker.away = True
    more = [one.began(one.record(user)) for user in users(20)]
    one.pass_time(3)
    one.partitions, two.partitions = (), range(64)
    two.pass_time(10)
    assert sorted(one.taker.taken + two.taker.taken) == sorted(begun + more)


def test_at_its_end_it_tells_what_is_left() -> None:
    """
    A stop tells everything that waits, as long as it is taken, and lets the partitions go.
    """
    teller = Teller(batch=5, interval_s=60.0)
    teller.start()
    begun = [teller.began(teller.record(user)) for user in users(23)]
    stopped = teller.stop()
    teller.pass_time(1)
    assert stopped.called
    assert sorted(teller.taker.taken) == sorted(begun)
    other = Teller(outbox=teller.outbox, name="i2")
    other.start()
    late = teller.began(teller.record("late"))
    other.pass_time(2)
    assert other.taker.taken == [late]


def test_an_end_does_not_wait_for_ever() -> None:
    """
    If nobody takes what is left, the stop is over after its time, and says how much is left.
    """
    teller = Teller(flush_timeout_s=2.0)
    teller.taker.away = True
    teller.start()
    teller.began(teller.record())
    stopped = teller.stop()
    teller.pass_time(4.5)
    assert stopped.called
    assert teller.logged()[-1] == "events.left"


def test_what_another_release_wrote_is_given_up() -> None:
    """
    An event that cannot be read holds nobody up.
    """
    teller = Teller()
    teller.outbox.append(teller.record("odd"), Event("odd", b"\xff"), START)
    good = teller.began(teller.record())
    teller.start()
    teller.pass_time(1)
    assert teller.taker.taken == [good]
    assert teller.waiting() == 0
    assert teller.logged() == ["event.given_up"]


def test_what_found_no_room_is_counted_and_told() -> None:
    """
    Beyond its bound the outbox loses events; operators are told how many.
    """
    teller = Teller()
    teller.outbox = outbox = MemoryOutbox(teller.wall, most=64)
    teller.delivery._outbox = outbox
    teller.taker.away = True
    for _ in range(3):
        teller.began(teller.record("same"))
    teller.start()
    assert teller.delivery.backlog.lost == 2
    assert teller.logged()[0] == "events.overflow"


def test_the_same_events_have_the_same_key_and_their_trace() -> None:
    """
    A batch that is told again has its key again, and a recorded event's trace goes along.
    """
    teller = Teller(retry_max_s=1.0)
    context = TraceContext("ab" * 16, "cd" * 8, sampled=True)
    teller.began(teller.record(), traceparent=context.header().decode())
    teller.taker.away = True
    teller.start()
    teller.pass_time(3)
    assert len(teller.taker.keys) > 1
    assert len(set(teller.taker.keys)) == 1
    assert teller.taker.traces[0].trace_id == context.trace_id


def test_a_batch_is_a_span_below_the_first_recorded_event() -> None:
    """
    Its parent is the command that began the first session whose trace is recorded; the others it is linked to.
    """
    house = Told(lambda: 0.0, sample=0.0)
    teller = Teller(spans=house.spans)
    contexts = [TraceContext(f"{number:032x}", f"{number:016x}", sampled=True) for number in (1, 2)]
    for context in contexts:
        teller.began(teller.record(), traceparent=context.header().decode())
    teller.began(teller.record())
    teller.start()
    span = house.one("publish events")
    assert (span.trace, span.parent) == (contexts[0].trace_id, contexts[0].parent_id)
    assert [trace for trace, _ in span.links] == [contexts[1].trace_id]
    assert span.said["messaging.batch.message_count"] == 3
    assert teller.taker.traces[0].trace_id == contexts[0].trace_id

"""
What every bus between instances promises.
"""

from __future__ import annotations

import pytest
import pytest_twisted
from tests.contract.buses import Buses
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, gatherResults

from gateway.ports.cluster import ALL, MOST_BODY, Answers, MessageTooLarge


@pytest_twisted.ensureDeferred
async def test_orders_reach_all_others_or_one(buses: Buses) -> None:
    """
    An order to all reaches every other instance, one to an instance that one; each with who gave it.
    """
    one, two, three = await buses.joined(3)
    assert await one.tell(ALL, "note", b"all")
    assert await one.tell(three.instance, "note", b"three")
    assert not await one.tell("nobody", "note", b"none")
    await buses.until(lambda: len(buses.heard[three.instance]) == 2)
    assert buses.heard == {
        one.instance: [],
        two.instance: [(one.instance, b"all")],
        three.instance: [(one.instance, b"all"), (one.instance, b"three")],
    }


@pytest_twisted.ensureDeferred
async def test_order_is_kept(buses: Buses) -> None:
    """
    What one instance sends another arrives in that order and once: orders and questions, to it and to all.
    """
    one, two = await buses.joined(2)
    sent = []
    for number in range(200):
        body = b"%d" % number
        to = ALL if number % 3 else two.instance
        sent.append(ensureDeferred(one.ask(to, "echo", body, 5) if number % 5 == 0 else one.tell(to, "note", body)))
    await gatherResults(sent)
    await buses.until(lambda: len(buses.heard[two.instance]) >= 200)
    assert buses.heard[two.instance] == [(one.instance, b"%d" % number) for number in range(200)]


@pytest_twisted.ensureDeferred
async def test_everybody_answers(buses: Buses) -> None:
    """
    A question to all is answered by each other instance, one to an instance by that one.
    """
    one, two, three = await buses.joined(3)
    assert await one.ask(ALL, "echo", b"?", 5) == Answers({two.instance: b"?", three.instance: b"?"}, ())
    assert await two.ask(one.instance, "echo", b"!", 5) == Answers({one.instance: b"!"}, ())


@pytest_twisted.ensureDeferred
async def test_alone(buses: Buses) -> None:
    """
    An instance alone has nobody to ask, and waits for nobody.
    """
    (one,) = await buses.joined(1)
    assert await one.ask(ALL, "echo", b"?", 60) == Answers()
    assert not await one.tell(ALL, "note", b"!")


@pytest_twisted.ensureDeferred
async def test_the_silent_are_named(buses: Buses) -> None:
    """
    Who does not answer in time is named, with the answers of the others; its work is cancelled.
    """
    one, two, three = await buses.joined(3)
    cancelled: list[str] = []
    buses.answers[two.instance] = Deferred(lambda _: cancelled.append("find"))
    asked = ensureDeferred(one.ask(ALL, "find", b"", 0.3))
    await buses.pass_time(0.2)
    assert not asked.called
    await buses.pass_time(0.2)
    assert await asked == Answers({three.instance: b"found"}, (two.instance,))
    await buses.until(lambda: cancelled == ["find"])
    assert not buses.failed


@pytest_twisted.ensureDeferred
async def test_who_cannot_answer_keeps_nobody_waiting(buses: Buses) -> None:
    """
    One that fails, has never heard of the question, or is gone is silent at once; a failure is reported there.
    """
    one, two, three = await buses.joined(3)
    buses.answers[two.instance] = ZeroDivisionError()
    assert await one.ask(ALL, "find", b"", 60) == Answers({three.instance: b"found"}, (two.instance,))
    assert [(name, failure.type) for name, failure in buses.failed] == [("find", ZeroDivisionError)]
    assert await one.ask(two.instance, "new", b"", 60) == Answers({}, (two.instance,))
    await two.leave()
    assert await one.ask(two.instance, "echo", b"", 60) == Answers({}, (two.instance,))


@pytest_twisted.ensureDeferred
async def test_an_order_that_fails_is_reported(buses: Buses) -> None:
    """
    An order that fails where it is obeyed changes nothing for those after it.
    """
    one, two = await buses.joined(2)
    await one.tell(two.instance, "fail", b"")
    await one.tell(two.instance, "note", b"after")
    await buses.until(lambda: bool(buses.heard[two.instance]))
    assert [name for name, _ in buses.failed] == ["fail"]


@pytest_twisted.ensureDeferred
async def test_sizes_are_bounded(buses: Buses) -> None:
    """
    What is too large is not sent; an answer that is too large is none.
    """
    one, two = await buses.joined(2)
    with pytest.raises(MessageTooLarge):
        await one.tell(ALL, "note", bytes(MOST_BODY + 1))
    with pytest.raises(MessageTooLarge):
        await one.ask(ALL, "echo", bytes(MOST_BODY + 1), 1)
    assert (await one.ask(ALL, "echo", bytes(MOST_BODY), 5)).answers == {two.instance: bytes(MOST_BODY)}
    assert await one.ask(ALL, "flood", b"", 60) == Answers({}, (two.instance,))
    assert [failure.type for _, failure in buses.failed] == [MessageTooLarge]


@pytest_twisted.ensureDeferred
async def test_another_name(buses: Buses) -> None:
    """
    Who joins again is heard under the new name only.
    """
    one, two = await buses.joined(2)
    before = two.instance
    await two.join("renamed")
    assert await one.ask(before, "echo", b"", 60) == Answers({}, (before,))
    assert await one.ask("renamed", "echo", b"", 5) == Answers({"renamed": b""}, ())
    assert await two.ask(one.instance, "echo", b"", 5) == Answers({one.instance: b""}, ())


@pytest_twisted.ensureDeferred
async def test_who_leaves_waits_no_longer(buses: Buses) -> None:
    """
    An instance that stops ends its own questions with the answers that it has.
    """
    one, two, three = await buses.joined(3)
    buses.answers[two.instance] = Deferred()
    asked = ensureDeferred(one.ask(ALL, "find", b"", 60))
    await buses.pass_time(0.1)
    await one.leave()
    assert await asked == Answers({three.instance: b"found"}, (two.instance,))


@pytest_twisted.ensureDeferred
async def test_a_question_can_be_cancelled(buses: Buses) -> None:
    """
    Who asks may stop waiting; that is a cancellation and no answer.
    """
    one, two = await buses.joined(2)
    buses.answers[two.instance] = Deferred()
    asked = ensureDeferred(one.ask(ALL, "find", b"", 60))
    asked.cancel()
    with pytest.raises(CancelledError):
        await asked

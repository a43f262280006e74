"""
Orders and questions between instances over sharded topics: one that all hear, and one of each instance.

All topics share a slot and everything that an instance says goes over one connection, so it arrives in that
order. A message that was overtaken all the same (its connection was given up, and a new one was faster) is
dropped where it arrives: each carries its sender's count.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from gateway.ports.cluster import ALL, MOST_ANSWER, MOST_BODY, Answers, Finds, MessageTooLarge, Obeys
from gateway.ports.realtime import StoreUnavailable
from gateway.redis.client import Store
from gateway.redis.connection import all_of

__all__ = ["RedisBus"]

MOST_AT_ONCE: Final = 10_000

MOST_SENDERS: Final = 4096
"""Whose count is remembered."""

_ORDER, _QUESTION, _ANSWER, _UNABLE = range(4)


class _Message(Struct, array_like=True):
    """
    What travels; members are only ever added at the end.

    Attributes:
        count: Of everything that *sender* said.
        id: Of a question, the asker's; an answer has its question's.
        wait_s: How long the asker waits.
    """

    kind: int
    sender: str
    count: int
    id: int = 0
    name: str = ""
    wait_s: float = 0.0
    body: bytes = b""


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Message).decode


class RedisBus:
    """
    One instance's place in the cluster (``ports.cluster.ClusterBus``).

    Args:
        peers: The instances that live, by name; this one may be among them. Fails with ``StoreUnavailable``.
        failed: Told of what fails here while it answers or obeys, with the name of it.
        most: Questions that wait here for answers, and as many that are being answered; who asks more gets none.
    """

    def __init__(
        self,
        redis: Store,
        clock: IReactorTime,
        peers: Callable[[], Awaitable[Iterable[str]]],
        failed: Callable[[str, Failure], None],
        *,
        most: int = MOST_AT_ONCE,
    ) -> None:
        self.instance = ""
        self._redis = redis
        self._clock = clock
        self._peers = peers
        self._failed = failed
        self._most = most
        self._base = redis.keys.one("bus")
        self._obeys: dict[str, Obeys] = {}
        self._finds: dict[str, Finds] = {}
        self._missed: list[Callable[[], None]] = []
        self._counts: dict[str, int] = {}
        self._count = 0
        self._asked = 0
        self._waiting: dict[int, _Question] = {}
        self._finding: dict[Deferred[Any], IDelayedCall] = {}
        self._known: frozenset[str] = frozenset()

    def _topic(self, to: str) -> str:
        return f"{self._base}:{to}" if to else self._base

    # Being heard.

    async def join(self, instance: str) -> None:
        """
        Be heard as *instance*.
        """
        before, topic = self.instance, self._topic(instance)
        await self._redis.subscribe(topic, self)
        try:
            await self._redis.subscribe(self._base, self)
        except BaseException:
            await self._redis.unsubscribe(topic)
            raise
        self.instance = instance
        if before and before != instance:
            await self._redis.unsubscribe(self._topic(before))

    async def leave(self) -> None:
        """
        Hear nothing more.
        """
        for question in list(self._waiting.values()):
            question.end()
        for finding in list(self._finding):
            finding.cancel()
        if self.instance:
            await self._redis.unsubscribe(self._base)
            await self._redis.unsubscribe(self._topic(self.instance))

    def obey(self, name: str, do: Obeys) -> None:
        """
        Do orders of this *name*.
        """
        self._obeys[name] = do

    def answer(self, name: str, find: Finds) -> None:
        """
        Answer questions of this *name*.
        """
        self._finds[name] = find

    def watch(self, missed: Callable[[], None]) -> None:
        """
        Tell *missed* of gaps.
        """
        self._missed.append(missed)

    # What is sent.

    async def tell(self, to: str, name: str, body: bytes) -> bool:
        """
        Order something.
        """
        _check(name, body, MOST_BODY)
        heard = await self._send(to, _ORDER, name=name, body=body)
        return heard > (to == ALL)

    async def ask(self, to: str, name: str, body: bytes, deadline_s: float) -> Answers:
        """
        Ask, and wait for the answers.
        """
        _check(name, body, MOST_BODY)
        self._asked += 1
        question = _Question(None if to == ALL else frozenset((to,)))
        if len(self._waiting) >= self._most:
            return question.answers(self._known)
        number = self._asked
        self._waiting[number] = question
        timer = self._clock.callLater(deadline_s, question.end)
        # Sent now, whatever it takes to know who should answer: what is said next comes after it.
        sent = Deferred.fromCoroutine(self._send(to, _QUESTION, number, name, deadline_s, body))
        following = Deferred.fromCoroutine(self._follow(to, question, sent))
        following.addErrback(self._lost, name, question)
        try:
            await question.done
            return question.answers(self._known)
        finally:
            del self._waiting[number]
            if timer.active():
                timer.cancel()
            following.cancel()

    async def _follow(self, to: str, question: _Question, sent: Deferred[int]) -> None:
        """Learn who should answer, and do not wait for those whom nothing reaches."""
        if to != ALL:
            if not await sent:
                question.unable(to)
            return
        _, peers = await all_of([sent, Deferred.fromCoroutine(_read(self._peers))])
        self._known = frozenset(peers) - {self.instance}
        question.expect(self._known)
        open_ = question.open()
        if not open_:
            return
        topics = [self._topic(instance) for instance in open_]
        counts = await self._redis.call("PUBSUB", "SHARDNUMSUB", *topics, key=self._base)
        for instance, count in zip(open_, counts[1::2], strict=True):
            if not count:
                question.unable(instance)

    def _lost(self, failure: Failure, name: str, question: _Question) -> None:
        if failure.check(CancelledError):
            return
        if not failure.check(StoreUnavailable):
            self._failed(name, failure)
        question.end()

    async def _send(
        self, to: str, kind: int, id: int = 0, name: str = "", wait_s: float = 0.0, body: bytes = b""
    ) -> int:
        """Publish; how many heard it."""
        self._count += 1
        message = _encode(_Message(kind, self.instance, self._count, id, name, wait_s, body))
        heard: int = await self._redis.call("SPUBLISH", self._topic(to), message)
        return heard

    # What comes.

    def message(self, topic: str, payload: bytes) -> None:
        """
        Take what another instance said.
        """
        try:
            message = _decode(payload)
        except msgspec.DecodeError:
            self._failed("bus", Failure())
            return
        sender, counts = message.sender, self._counts
        if sender == self.instance:
            return
        if message.count <= counts.get(sender, 0):
            return  # It was overtaken.
        if sender not in counts and len(counts) >= MOST_SENDERS:
            del counts[next(iter(counts))]
        counts[sender] = message.count
        if message.kind == _ORDER:
            self._do(message)
        elif message.kind == _QUESTION:
            self._find(message)
        elif (question := self._waiting.get(message.id)) is not None:
            if message.kind == _ANSWER:
                question.answered(sender, message.body)
            else:
                question.unable(sender)

    def gap(self, topics: Sequence[str]) -> None:
        """
        Tell that something may have been missed.
        """
        for missed in self._missed:
            missed()

    def _do(self, message: _Message) -> None:
        do = self._obeys.get(message.name)
        if do is None:
            return
        try:
            do(message.sender, message.body)
        except Exception:  # Whatever fails here is not the sender's business.
            self._failed(message.name, Failure())

    def _find(self, message: _Message) -> None:
        find = self._finds.get(message.name)
        finding: Deferred[Any] = Deferred.fromCoroutine(self._found(find, message))
        finding.addErrback(self._unsaid, message.name)
        if not finding.called:
            self._finding[finding] = self._clock.callLater(message.wait_s, finding.cancel)
            finding.addCallback(self._settled, finding)

    def _unsaid(self, failure: Failure, name: str) -> None:
        if not failure.check(CancelledError):
            self._failed(name, failure)

    def _settled(self, _: Any, finding: Deferred[Any]) -> None:
        timer = self._finding.pop(finding)
        if timer.active():
            timer.cancel()

    async def _found(self, find: Finds | None, message: _Message) -> None:
        kind, body = _UNABLE, b""
        if find is not None and len(self._finding) < self._most:
            try:
                body = await find(message.sender, message.body)
                _check(message.name, body, MOST_ANSWER)
                kind = _ANSWER
            except CancelledError:
                return  # Nobody waits any more.
            except Exception:  # The asker is told that there is no answer, our log why.
                body = b""
                self._failed(message.name, Failure())
        try:
            await self._send(message.sender, kind, message.id, body=body)
        except StoreUnavailable:
            return  # The asker sees that nothing comes.


class _Question:
    """
    What waits for answers.

    Args:
        expected: Who should answer; None until that is known.
    """

    __slots__ = ("_answers", "_expected", "_unable", "done")

    def __init__(self, expected: frozenset[str] | None) -> None:
        self.done: Deferred[None] = Deferred()
        self._expected = expected
        self._answers: dict[str, bytes] = {}
        self._unable: set[str] = set()

    def expect(self, expected: frozenset[str]) -> None:
        """Learn who should answer."""
        self._expected = expected
        self._look()

    def open(self) -> list[str]:
        """Who should still answer."""
        return [each for each in self._expected or () if each not in self._answers and each not in self._unable]

    def answered(self, instance: str, answer: bytes) -> None:
        """Take an answer."""
        self._answers[instance] = answer
        self._look()

    def unable(self, instance: str) -> None:
        """Wait for *instance* no more."""
        self._unable.add(instance)
        self._look()

    def _look(self) -> None:
        if self._expected is not None and not self.open():
            self.end()

    def end(self) -> None:
        """Wait no more for anybody."""
        if not self.done.called:
            self.done.callback(None)

    def answers(self, known: frozenset[str]) -> Answers:
        """What came until now; *known* should have answered where nobody could say who."""
        expected = self._expected if self._expected is not None else known
        return Answers(dict(self._answers), tuple(sorted(expected - self._answers.keys())))


def _check(name: str, body: bytes, most: int) -> None:
    if len(body) > most:
        raise MessageTooLarge(f"{name}: {len(body)} bytes, of which {most} may be")


async def _read(peers: Callable[[], Awaitable[Iterable[str]]]) -> Iterable[str]:
    return await peers()

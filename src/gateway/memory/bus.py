"""
Orders and questions between the nodes of one process.

Several nodes may share a ``MemoryCluster`` (tests do, to be several instances); each has a ``MemoryBus`` of
its own in it. What one says another hears before the call returns. A node alone asks nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from gateway.ports.cluster import ALL, MOST_ANSWER, MOST_BODY, Answers, Finds, MessageTooLarge, Obeys

__all__ = ["MemoryBus", "MemoryCluster"]


class MemoryCluster:
    """
    Who is there, shared by the buses of a process.
    """

    def __init__(self) -> None:
        self.buses: dict[str, MemoryBus] = {}


class MemoryBus:
    """
    One node's place in the cluster (``ports.cluster.ClusterBus``).

    Args:
        failed: Told of what fails here while it answers or obeys, with the name of it.
    """

    def __init__(self, cluster: MemoryCluster, clock: IReactorTime, failed: Callable[[str, Failure], None]) -> None:
        self.instance = ""
        self._cluster = cluster
        self._clock = clock
        self._failed = failed
        self._obeys: dict[str, Obeys] = {}
        self._finds: dict[str, Finds] = {}
        self._waiting: set[_Waiting] = set()

    async def join(self, instance: str) -> None:
        """
        Be heard as *instance*.
        """
        self._cluster.buses.pop(self.instance, None)
        self.instance = instance
        self._cluster.buses[instance] = self

    async def leave(self) -> None:
        """
        Hear nothing more.
        """
        if self._cluster.buses.get(self.instance) is self:
            del self._cluster.buses[self.instance]
        for waiting in list(self._waiting):
            waiting.end()

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
        Nothing is ever lost here.
        """

    async def tell(self, to: str, name: str, body: bytes) -> bool:
        """
        Order something.
        """
        heard = False
        for bus in self._others(to, name, body).values():
            if bus is not None:
                heard = True
                bus._told(self.instance, name, body)
        return heard

    async def ask(self, to: str, name: str, body: bytes, deadline_s: float) -> Answers:
        """
        Ask, and wait for the answers.
        """
        asked = {
            instance: bus._asked(self.instance, name, body) if bus is not None else None
            for instance, bus in self._others(to, name, body).items()
        }
        waiting = _Waiting(asked)
        self._waiting.add(waiting)
        timer = self._clock.callLater(deadline_s, waiting.end)
        try:
            await waiting.done
            return waiting.answers()
        finally:
            if timer.active():
                timer.cancel()
            self._waiting.discard(waiting)
            waiting.give_up()

    def _others(self, to: str, name: str, body: bytes) -> dict[str, MemoryBus | None]:
        if len(body) > MOST_BODY:
            raise MessageTooLarge(f"{name}: {len(body)} bytes, of which {MOST_BODY} may be")
        buses = self._cluster.buses
        if to != ALL:
            return {to: buses.get(to)}
        return {instance: bus for instance, bus in buses.items() if bus is not self}

    def _told(self, sender: str, name: str, body: bytes) -> None:
        do = self._obeys.get(name)
        if do is None:
            return
        try:
            do(sender, body)
        except Exception:  # Whatever fails here is not the sender's business.
            self._failed(name, Failure())

    def _asked(self, sender: str, name: str, body: bytes) -> Deferred[bytes] | None:
        find = self._finds.get(name)
        if find is None:
            return None

        async def found() -> bytes:
            answer = await find(sender, body)
            if len(answer) > MOST_ANSWER:
                raise MessageTooLarge(f"{name}: an answer of {len(answer)} bytes, of which {MOST_ANSWER} may be")
            return answer

        def failed(failure: Failure) -> Failure:
            if not failure.check(CancelledError):
                self._failed(name, failure)
            return failure

        return Deferred.fromCoroutine(found()).addErrback(failed)


class _Waiting:
    """
    A question, until everybody has answered or it is ended.

    Args:
        asked: Who should answer, with what will be the answer; None where there will be none.
    """

    def __init__(self, asked: Mapping[str, Deferred[bytes] | None]) -> None:
        self.done: Deferred[None] = Deferred()
        self._asked = asked
        self._answers: dict[str, bytes] = {}
        self._left = len(asked)
        for instance, found in asked.items():
            if found is None:
                self._settled()
            else:
                found.addCallbacks(partial(self._answered, instance), lambda _: self._settled())
        if not asked:
            self.end()

    def _answered(self, instance: str, answer: bytes) -> None:
        self._answers[instance] = answer
        self._settled()

    def _settled(self) -> None:
        self._left -= 1
        if not self._left:
            self.end()

    def end(self) -> None:
        """
        Wait no more for anybody.
        """
        if not self.done.called:
            self.done.callback(None)

    def give_up(self) -> None:
        """
        Have those who did not answer go on no longer.
        """
        for found in self._asked.values():
            if found is not None:
                found.cancel()

    def answers(self) -> Answers:
        """
        Tell what came until now.
        """
        answers = self._answers
        return Answers(dict(answers), tuple(instance for instance in self._asked if instance not in answers))

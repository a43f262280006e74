"""
A receiver that remembers, and a pool to one target.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.backends.running import Lying
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from gateway.config.sections import Upstream
from gateway.core.message import Header, ResponseHead
from gateway.ports.upstream import Fault
from gateway.upstream.pool import Pool
from gateway.upstream.target import Target


class Receiving:
    """
    Keeps a response; ``done`` fires with itself at the end, well or badly.
    """

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self._parts: list[bytes] = []
        self.calls = 0
        self.interim: list[tuple[int, list[Header]]] = []
        self.fault: Fault | None = None
        self.began: Deferred[Receiving] = Deferred()
        self.done: Deferred[Receiving] = Deferred()

    def responded(self, head: ResponseHead, data: bytes, ended: bool) -> None:
        assert self.head is None, "two heads"
        self.head = head
        self.calls += 1
        self.began.callback(self)
        self._more(data, ended)

    def received(self, data: bytes, ended: bool) -> None:
        self.calls += 1
        self._more(data, ended)

    def _more(self, data: bytes, ended: bool) -> None:
        assert not self.done.called, "after the end"
        self._parts.append(data)
        if ended:
            self.done.callback(self)

    @property
    def body(self) -> bytes:
        return b"".join(self._parts)

    def informed(self, status: int, headers: list[Header]) -> None:
        self.interim.append((status, headers))

    def failed(self, fault: Fault) -> None:
        assert not self.done.called, "after the end"
        self.fault = fault
        self.done.callback(self)


Pools = Callable[..., Pool]


@pytest.fixture
def pools() -> Iterator[Pools]:
    """
    Make pools that are closed after the test.
    """
    made: list[Pool] = []

    def make(target: str | int, **options: Any) -> Pool:
        url = f"http://127.0.0.1:{target}" if isinstance(target, int) else target
        pool = Pool(reactor, Target.parse(url), replace(Upstream(name="test"), **options))
        made.append(pool)
        return pool

    yield make
    for pool in made:
        pool.abort()


@pytest.fixture(scope="module")
def farm() -> Iterator[list[Lying]]:
    """
    Lying backends of this module; started when asked for, ended with it.
    """
    running: list[Lying] = []
    yield running
    for backend in running:
        backend.stop()


Lies = Callable[[], Lying]


@pytest.fixture
def lying(farm: list[Lying]) -> Lies:
    """
    Hand out backends that remember nothing of other tests.
    """
    used: list[Lying] = []

    def hand_out() -> Lying:
        if len(used) == len(farm):
            farm.append(Lying())
        backend = farm[len(used)]
        used.append(backend)
        backend.forget()
        return backend

    return hand_out

"""
The map of a cluster, kept: asked of several nodes, now and then and whenever it seems to be wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater

from gateway.core.backoff import backoff
from gateway.ports.realtime import StoreUnavailable
from gateway.redis.answers import answers_of
from gateway.redis.connection import Connection, all_of
from gateway.redis.errors import RedisFault
from gateway.redis.slots import Address, Claim, SlotMap, read_claims

__all__ = ["Atlas"]

ASK_S: Final = 5.0
"""How often it is asked for while everything seems to be well."""

RESTLESS_S: Final = 0.3
"""The same while a master is away."""

LEAST_S: Final = 0.1
"""It is never asked for more often, however many redirections there are."""

MOST_WAIT_S: Final = 2.0

MOST_ASKED: Final = 5
"""Nodes asked at once."""


class Atlas:
    """
    Who knows the map.

    Args:
        seeds: Nodes to begin with.
        endpoint: Makes the endpoint of a node.
        make: Makes a connection to a node; it is told ``lost``.
        connected: The nodes that are connected to.
        restless: Whether something is wrong: then it is asked for more often.
        changed: Called with the slots that are another's now.
        failed: Called with the reason when nobody could be asked.
        random: Evenly from 0 to 1.

    Attributes:
        slots: The map as it is known.
    """

    def __init__(
        self,
        reactor: Any,
        seeds: Sequence[Address],
        endpoint: Callable[[str, int], IStreamClientEndpoint],
        make: Callable[[Callable[[Connection, str], None]], Connection],
        *,
        connected: Callable[[], Sequence[tuple[Address, Connection]]],
        restless: Callable[[], bool],
        changed: Callable[[set[int]], None],
        failed: Callable[[str], None],
        random: Callable[[], float],
    ) -> None:
        self.slots = SlotMap()
        self._reactor = reactor
        self._seeds = seeds
        self._endpoint = endpoint
        self._factory = Factory.forProtocol(lambda: make(lambda _connection, _reason: None))
        self._factory.noisy = False
        self._connected = connected
        self._restless = restless
        self._changed = changed
        self._failed = failed
        self._random = random
        self._reasons: dict[Address, str] = {}
        self._wanted: Deferred[None] = Deferred()
        self._keeping: Deferred[None] | None = None

    def start(self) -> None:
        """
        Begin to ask.
        """
        self._keeping = Deferred.fromCoroutine(self._keep())
        self._keeping.addErrback(lambda failure: failure.trap(CancelledError))

    async def stop(self) -> None:
        """
        Ask no more.
        """
        if self._keeping is not None:
            self._keeping.cancel()
            await self._keeping

    def soon(self) -> None:
        """
        Ask as soon as it may be asked again.
        """
        if not self._wanted.called:
            self._wanted.callback(None)

    def moved(self, slot: int, address: Address) -> bool:
        """
        Believe a redirection, and ask whether more has changed; return whether the slot was somebody else's.
        """
        self.soon()
        if not self.slots.move(slot, address):
            return False
        self._changed({slot})
        return True

    async def _keep(self) -> None:
        failures = 0
        while True:
            self._wanted = Deferred()
            try:
                answers = await self._ask()
            except StoreUnavailable as error:
                failures += 1
                self._failed(str(error))
                wait_s = backoff(failures, LEAST_S, MOST_WAIT_S, self._random)
                await deferLater(self._reactor, wait_s)
                continue
            failures = 0
            changed = self.slots.take(answers)
            if changed:
                self._changed(changed)
            await deferLater(self._reactor, LEAST_S)
            await self._until_wanted(RESTLESS_S if self._restless() else ASK_S * (0.5 + self._random()))

    async def _until_wanted(self, within_s: float) -> None:
        timer = self._reactor.callLater(within_s, self.soon)
        try:
            await self._wanted
        finally:
            if timer.active():
                timer.cancel()

    async def _ask(self) -> list[list[Claim]]:
        known = self._some(self._connected())
        asked = [Deferred.fromCoroutine(self._claims(address, connection)) for address, connection in known]
        answers = await answers_of(asked, self._reactor)
        if not answers:
            self._reasons.clear()
            strangers = self._some([(address, None) for address in {*self._seeds, *self.slots.masters}])
            asked = [Deferred.fromCoroutine(self._ask_stranger(address)) for address, _ in strangers]
            answers = await answers_of(asked, self._reactor)
        if not answers:
            reasons = "; ".join(f"{host}:{port}: {reason}" for (host, port), reason in sorted(self._reasons.items()))
            raise StoreUnavailable(f"no node of the cluster answers: {reasons}")
        return answers

    def _some(self, nodes: Sequence[Any]) -> list[Any]:
        return sorted(nodes, key=lambda _: self._random())[:MOST_ASKED]

    async def _claims(self, address: Address, connection: Connection) -> list[Claim] | None:
        """Ask one; None if it cannot say, and the reason is kept."""
        try:
            slots, nodes = await all_of([connection.send(("CLUSTER", "SLOTS")), connection.send(("CLUSTER", "NODES"))])
            return read_claims(slots, nodes, address[0])
        except (RedisFault, StoreUnavailable) as error:
            self._reasons[address] = str(error)
        except (ValueError, LookupError, TypeError, AttributeError):
            self._reasons[address] = "it says nothing that can be understood"
        return None

    async def _ask_stranger(self, address: Address) -> list[Claim] | None:
        connection: Any = None
        try:
            connection = await self._endpoint(*address).connect(self._factory)
            await connection.greet()
            return await self._claims(address, connection)
        except CancelledError:
            raise
        except Exception as error:  # Whatever keeps us from it: another is asked, and the reason told.
            self._reasons[address] = str(error) or type(error).__name__
            return None
        finally:
            if connection is not None:
                connection.give_up("asked")

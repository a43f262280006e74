"""
Where the master of a service is, asked of its sentinels before every connection and each second.

All sentinels are asked at once, and the answer of the newest configuration counts: one that was cut off
and names yesterday's master convinces nobody. txredisapi has a Sentinel of its own, which takes the
global reactor, waits ten seconds for a master, speaks no TLS to it and believes who answers first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from gateway.ports.realtime import StoreUnavailable
from gateway.redis.answers import answers_of
from gateway.redis.connection import Connection, all_of
from gateway.redis.errors import RedisFault
from gateway.redis.link import Link
from gateway.redis.master import Account
from gateway.redis.slots import Address

__all__ = ["Sentinels"]

ASK_S: Final = 1.0
"""How often it is asked who is master: how late a failover is found whose old master goes on to answer."""

FIRST_S: Final = 2.0
"""How long a connection waits for a first sentinel to be connected to."""

MOST: Final = 64
"""Sentinels that are asked, the configured ones among them."""


class _Told(Struct, frozen=True):
    """
    What a sentinel says.

    Attributes:
        epoch: Grows with each failover; a majority has agreed on it.
        others: The sentinels that it knows.
    """

    master: Address
    epoch: int
    others: frozenset[Address]


@implementer(IStreamClientEndpoint)
class Sentinels:
    """
    An endpoint that leads to the master.

    Args:
        hosts: Some sentinels; they name the others.
        service: What they call the master.
        account: Who we are to sentinels.
        endpoint: Makes the endpoint of an address, of sentinels and masters alike.
        random: Evenly from 0 to 1.
    """

    def __init__(
        self,
        reactor: Any,
        hosts: Sequence[Address],
        service: str,
        account: Account,
        endpoint: Callable[[str, int], IStreamClientEndpoint],
        *,
        random: Callable[[], float],
    ) -> None:
        self._reactor = reactor
        self._hosts = hosts
        self._service = service
        self._account = account
        self._endpoint = endpoint
        self._random = random
        self._links: dict[Address, Link] = {}
        self._reasons: dict[Address, str] = {}
        self._waiting: list[Deferred[None]] = []
        self._at: Address | None = None
        self._moved: Callable[[str], None] | None = None
        self._asking: IDelayedCall | None = None
        self._watching: Deferred[None] | None = None

    def start(self, moved: Callable[[str], None]) -> None:
        """
        Connect to the sentinels.

        Args:
            moved: Called with the reason when connections must be made anew: another is master now.
        """
        self._moved = moved
        for address in self._hosts:
            self._add(address)
        self._asking = self._reactor.callLater(ASK_S, self._ask)

    async def stop(self) -> None:
        """
        Close the connections to sentinels.
        """
        self._moved = None
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None
        if self._watching is not None:
            self._watching.cancel()
        links, self._links = self._links, {}
        for link in links.values():
            await link.stop()

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect to the master."""
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        host, port = self._at = await self._master()
        connected: IProtocol = await self._endpoint(host, port).connect(factory)
        return connected

    # The sentinels.

    def _add(self, address: Address) -> None:
        link = self._links[address] = Link(
            self._reactor,
            self._endpoint(*address),
            self._make,
            prepare=_nothing,
            up=lambda _: self._up(address),
            down=lambda reason: self._reasons.__setitem__(address, reason),
            random=self._random,
        )
        link.start()

    def _make(self, lost: Callable[[Connection, str], None]) -> Connection:
        return self._account.connection(self._reactor, lost)

    def _up(self, address: Address) -> None:
        self._reasons.pop(address, None)
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    def _learn(self, told: Sequence[_Told]) -> None:
        """Ask those who are named from now on, and no more those who are not."""
        named = frozenset().union(*(each.others for each in told))
        for address in sorted(named - self._links.keys())[: MOST - len(self._links)]:
            self._add(address)
        for address in self._links.keys() - named - set(self._hosts):
            if self._links[address].connection is None:
                Deferred.fromCoroutine(self._links.pop(address).stop())
                self._reasons.pop(address, None)

    # Asking them.

    async def _master(self) -> Address:
        """
        Ask who is master.

        Raises:
            StoreUnavailable: nobody says, and why.
        """
        asked = [Deferred.fromCoroutine(self._told(*each)) for each in self._connected()]
        if not asked:
            await self._one_up()
            asked = [Deferred.fromCoroutine(self._told(*each)) for each in self._connected()]
        told = await answers_of(asked, self._reactor)
        if not told:
            raise StoreUnavailable(self._why())
        self._learn(told)
        votes = Counter((each.epoch, each.master) for each in told)
        newest = max(votes, key=lambda each: (each[0], votes[each], each[1] == self._at))
        return newest[1]

    def _connected(self) -> list[tuple[Address, Connection]]:
        return [(address, link.connection) for address, link in self._links.items() if link.connection is not None]

    async def _one_up(self) -> None:
        up: Deferred[None] = Deferred()
        self._waiting.append(up)
        timer = self._reactor.callLater(FIRST_S, _end, up)
        try:
            await up
        finally:
            if timer.active():
                timer.cancel()
            if up in self._waiting:
                self._waiting.remove(up)

    async def _told(self, address: Address, connection: Connection) -> _Told | None:
        """Ask one; None if it cannot say, and the reason is kept."""
        service = self._service
        try:
            # The address that is told already knows of a promotion that this sentinel has not finished, as does the epoch.
            master, state, others = await all_of(
                [
                    connection.send(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)),
                    connection.send(("SENTINEL", "MASTER", service)),
                    connection.send(("SENTINEL", "SENTINELS", service)),
                ]
            )
            named = _fields(state)
            return _Told(
                (master[0].decode(), int(master[1])),
                int(named[b"config-epoch"]),
                frozenset((fields[b"ip"].decode(), int(fields[b"port"])) for fields in map(_fields, others)),
            )
        except (RedisFault, StoreUnavailable) as error:
            self._reasons[address] = str(error)
        except (KeyError, TypeError, ValueError):
            self._reasons[address] = "it says nothing that can be understood"
        return None

    def _why(self) -> str:
        reasons = [f"{host}:{port}: {reason}" for (host, port), reason in sorted(self._reasons.items())]
        return f"no sentinel knows the master of {self._service}: {'; '.join(reasons) or 'none answers'}"

    def _ask(self) -> None:
        self._asking = self._reactor.callLater(ASK_S, self._ask)
        if self._watching is None and self._connected():
            self._watching = Deferred.fromCoroutine(self._look())
            self._watching.addBoth(self._looked)

    async def _look(self) -> None:
        master = await self._master()
        if self._moved is not None and self._at is not None and master != self._at:
            self._at = master
            self._moved(f"{master[0]}:{master[1]} is master now")

    def _looked(self, result: object) -> object:
        self._watching = None
        if isinstance(result, Failure) and result.check(StoreUnavailable, CancelledError):
            return None  # Nobody knows better than the connections themselves.
        return result


def _end(waiting: Deferred[None]) -> None:
    if not waiting.called:
        waiting.callback(None)


async def _nothing(_: Connection) -> None:
    """A sentinel has nothing to be prepared."""


def _fields(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=False))

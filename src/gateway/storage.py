"""
Where an instance keeps what outlives a connection: in this process, or in Redis for all instances.

Part of the composition root: it names the concrete stores. Redis is imported only where it is configured, because
its library takes the reactor that is installed by then.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from gateway.config.limit_sections import Limits
from gateway.config.sections import Config
from gateway.core.store_url import read_store_url
from gateway.memory.broker import MemoryChannels
from gateway.memory.bus import MemoryBus, MemoryCluster
from gateway.memory.limits import MemoryLimiter
from gateway.memory.revocations import MemoryRevocations
from gateway.memory.stores import SpooledStores, memory_stores
from gateway.ports.events import EventSink
from gateway.ports.identity import Revocations
from gateway.ports.limits import RateLimiter
from gateway.ports.stores import Stores
from gateway.spool.file import SpoolFile
from gateway.spool.keeping import BEAT_S, FileSpool
from gateway.telemetry.logs import tell
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.tally import Series
from gateway.upstream.tls import client_options

if TYPE_CHECKING:
    from gateway.redis.client import Linked
    from gateway.redis.limits import RedisLimiter
    from gateway.redis.revocations import RedisRevocations

__all__ = ["Storage"]

FIRST_S: Final = 5.0
"""How long a start waits for Redis; then it goes on, is not ready, and takes nobody."""

LAST_S: Final = 5.0
"""How long an end waits for a disk."""

LOOK_S: Final = 0.02


class Storage:
    """
    The stores of one instance.

    Args:
        wall: Seconds since the epoch.
        log: A structlog logger.
        failed: Told of faults of what runs by itself, with its name.

    Attributes:
        stores: One complete set.
        spool: What writes it down; None if it is in Redis, or nowhere.
        lost_s: So much later than its last sign of life an instance may have died.
        local: Counts for rate limits in this process.
        limiter: Counts for all instances: in Redis, or the same as *local*.
        revocations: What was revoked, here and everywhere.
    """

    def __init__(
        self,
        reactor: Any,
        config: Config,
        *,
        wall: Callable[[], float],
        log: Any,
        failed: Callable[[str, Failure], None],
    ) -> None:
        self._reactor = reactor
        self._config = config
        self.spool: FileSpool | None = None
        self._log = log
        self._redis: Linked | None = None
        self._timing: Series | None = None
        self._shared: RedisRevocations | None = None
        section = config.store
        self.lost_s = section.lease_s
        self.local = MemoryLimiter(reactor.seconds)
        self.limiter: RateLimiter = self.local
        self._limiter: RedisLimiter | None = None
        self.revocations: Revocations
        self.stores: Stores
        if not read_store_url(section.url).shared:
            self.revocations = MemoryRevocations(wall)
            bus = MemoryBus(MemoryCluster(), reactor, failed)
            spool = config.events.spool
            if spool is not None:
                self.lost_s = BEAT_S
                self.spool = FileSpool(reactor, SpoolFile(spool, _fresh()), wall=wall, event=self._event, failed=failed)
            self.stores = memory_stores(
                MemoryChannels(reactor.seconds, wall),
                bus,
                wall,
                self.spool,
                most_events=config.events.most_waiting,
                most_bytes=config.events.memory_bytes,
            )
            return
        from gateway.redis.connect import connect
        from gateway.redis.limits import RedisLimiter
        from gateway.redis.revocations import RedisRevocations
        from gateway.redis.stores import redis_stores

        self._redis = connect(
            reactor,
            section,
            tls=lambda host: client_options(section.tls, host, ()),
            random=random.random,
            fresh=_fresh,
            event=self._event,
            took=self._took,
        )
        self.stores = redis_stores(
            self._redis,
            reactor,
            wall=wall,
            fresh=_fresh,
            failed=failed,
            odd=lambda text: self._event("store.odd", {"what": text}),
            lease_s=section.lease_s,
            most_events=config.events.most_waiting,
        )
        self._limiter = self.limiter = RedisLimiter(self._redis, reactor, self.local, event=self._event)
        self._shared = self.revocations = RedisRevocations(
            self._redis,
            reactor,
            MemoryRevocations(wall),
            MemoryRevocations(wall),
            wall=wall,
            fresh=_fresh,
            failed=failed,
        )

    async def start(self) -> None:
        """
        Connect; with Redis away it goes on after a while, and is not ready. Or take back what the spool has.
        """
        if self.spool is not None:
            await self.spool.start(SpooledStores(self.stores, self._config.realtime.resume_window_s), FIRST_S)
        elif self._redis is None and self._config.events.upstream:
            self._log.warning("spool.none", lost="the ends of sessions that are open when this process dies")
        redis, shared = self._redis, self._shared
        if redis is None or shared is None:
            return
        redis.start()
        until = self._reactor.seconds() + FIRST_S
        while not (redis.available and redis.hearing) and self._reactor.seconds() < until:
            await deferLater(self._reactor, LOOK_S)
        await shared.start()

    @property
    def ends_with_process(self) -> bool:
        """Nothing of it is left when this process has ended."""
        return self._redis is None and self.spool is None

    def event_stream(self, name: str, length: int) -> EventSink:
        """
        Make a stream of events in Redis, for others to read.
        """
        from gateway.redis.event_stream import EventStream

        assert self._redis is not None, "as the configuration was checked"
        return EventStream(self._redis, name, length)

    def configure(self, limits: Limits, instances: Callable[[], int]) -> None:
        """
        Take how long a limit's verdict is waited for, and who knows how many instances there are.
        """
        if self._limiter is not None:
            self._limiter.answer_s = limits.store_timeout_s
            self._limiter.instances = instances

    async def stop(self) -> None:
        """
        Disconnect, or write the last and close the spool.
        """
        if self.spool is not None:
            await self.spool.stop(LAST_S)
        if self._shared is not None:
            await self._shared.stop()
        if self._redis is not None:
            await self._redis.stop()

    def observe(self, metrics: Metrics) -> None:
        """
        Show how Redis and the spool are.
        """
        redis = self._redis
        if redis is not None:
            metrics.store_up.from_source(lambda: [((), float(redis.available))])
            metrics.store_losses.from_source(lambda: [((), float(redis.losses))])
            self._timing = metrics.store_seconds.series()
        spool = self.spool
        if spool is not None:
            metrics.spool_up.from_source(lambda: [((), float(spool.keeping and not spool.late))])
            metrics.spool_waiting.from_source(lambda: [((), float(spool.waiting))])
            metrics.spool_missed.from_source(lambda: [((), float(spool.missed))])

    def ready(self) -> bool:
        """
        Whether clients may be sent here: what is revoked was read once. A Redis that goes away later changes nothing.
        """
        return self._shared is None or self._shared.complete

    def _took(self, seconds: float) -> None:
        if self._timing is not None:
            self._timing.observe(seconds)

    def _event(self, name: str, fields: dict[str, Any]) -> None:
        tell(self._log, name, fields)


def _fresh() -> str:
    return secrets.token_hex(4)

"""
Events of sessions put together: what is told, by whom, and to whom.

Part of the composition root: it names concrete classes and says who knows whom.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from gateway.config.checks.events import EVENT_ROOTS
from gateway.config.sections import Config
from gateway.core.privacy import Privacy
from gateway.events.content import Content
from gateway.events.delivery import Delivery
from gateway.events.sinks import BackendSink
from gateway.node.background import Background
from gateway.node.realtime import RealtimeNode
from gateway.ports.events import EventSink
from gateway.storage import Storage
from gateway.telemetry.spans import Spans
from gateway.upstream.asking import Maker

__all__ = ["EventTelling"]

AGAIN_S = 5.0
STREAM_TIMEOUT_S = 5.0
"""How long an append to a stream may take, with the store's own time-outs."""


class EventTelling:
    """
    The events of one instance.

    Args:
        failed: Told of faults of what runs by itself, with its name.
        privacy: How people are written.

    Attributes:
        content: What is written when something happens to a session.
    """

    def __init__(
        self,
        reactor: Any,
        storage: Storage,
        spans: Spans,
        log: Any,
        failed: Callable[[str, Failure], None],
        privacy: Privacy,
    ) -> None:
        self._storage = storage
        self._spans = spans
        self._log = log
        self._reactor = reactor
        self._failed = failed
        self._background = Background(reactor, failed)
        self._node: RealtimeNode | None = None
        self._delivery: Delivery | None = None
        self.content = Content(storage.lost_s, privacy)

    def watch(self, node: RealtimeNode) -> None:
        """
        Tell of *node*'s sessions.
        """
        self._node = node
        self._delivery = delivery = Delivery(
            self._storage.stores.events,
            self._reactor,
            instance=lambda: node.instance,
            partitions=lambda: node.sessions.partitions,
            random=random.random,
            spans=self._spans,
            metrics=node.metrics,
            log=self._log,
        )
        metrics, wall = node.metrics, node.wall
        metrics.events_waiting.from_source(lambda: [((), float(delivery.backlog.waiting))])
        metrics.events_overflow.from_source(lambda: [((), float(delivery.backlog.lost))])
        metrics.events_age.from_source(
            lambda: [((), max(0.0, wall() - delivery.backlog.oldest_at) if delivery.backlog.waiting else 0.0)]
        )

    def prepare(self, config: Config, make: Maker) -> Callable[[], None]:
        """
        Compile what *config* says; return what puts it in force.

        Raises:
            ValueError: the call does not fit its upstream.
        """
        section = config.events
        sink: EventSink | None = None
        timeout_s = STREAM_TIMEOUT_S
        if section.upstream:
            sink = BackendSink(make(section, EVENT_ROOTS, lenient=True))
            timeouts = {upstream.name: upstream.timeout_s for upstream in config.upstream}
            timeout_s = timeouts[section.upstream] if section.timeout_s is None else section.timeout_s
        elif section.stream:
            sink = self._storage.event_stream(section.stream, section.stream_length)

        def change() -> None:
            assert self._node is not None
            assert self._delivery is not None
            self.content.configure(section, on=sink is not None)
            self._delivery.configure(section, sink, timeout_s)

        return change

    def start(self) -> None:
        """
        Tell from now on.
        """
        assert self._delivery is not None
        self._background.spawn("events.tell", self._run(self._delivery))

    async def _run(self, delivery: Delivery) -> None:
        while True:
            try:
                await delivery.run()
            except CancelledError:
                raise
            except Exception:  # A fault of ours must not end the telling for ever.
                self._failed("events.tell", Failure())
                await deferLater(self._reactor, AGAIN_S)
            else:
                return

    async def stop(self) -> None:
        """
        Tell what is left, and end.
        """
        assert self._delivery is not None
        await self._delivery.stop()
        await self._background.stop()

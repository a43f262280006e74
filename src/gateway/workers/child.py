"""
One worker: a gateway that serves clients, and tells its parent what operators ask.

Its admin and API ports are its parent's, and so are the reload and the end: it changes over when its
parent has seen that all can, and drains when its parent says so, or is gone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.python.failure import Failure

from gateway.app import Gateway
from gateway.config.load import parse
from gateway.config.sections import Config, Console
from gateway.part import Part
from gateway.reloading import REFUSALS, Change
from gateway.telemetry.logs import Logs
from gateway.workers.line import Begin, Line
from gateway.workers.pinned import pinned

__all__ = ["Child"]


class Child:
    """
    What one worker's process runs.

    Args:
        begin: What the parent said first.
        config: Read from ``begin.text``.
        rotate: Opens the log again.

    Attributes:
        line: To the parent; attached by whoever has the socket, before ``start``.
    """

    def __init__(self, reactor: Any, begin: Begin, config: Config, logs: Logs, rotate: Callable[[], None]) -> None:
        self._reactor = reactor
        self._logs = logs
        self._rotate = rotate
        self._path = Path(begin.path)
        part = Part(narrow=_without_operators, minting=begin.minting, descriptors=begin.descriptors)
        self.gateway = Gateway(reactor, pinned(config, begin.pinned), self._path, logs, part=part)
        self.line = Line(reactor, self._answer, self._told, self._orphaned, self._crashed)
        self._change: Change | None = None
        self._serves = False
        self._stopping = False
        self._waiting: list[Deferred[None]] = []
        self._sign()

    # What ``tap`` does with an instance.

    async def start(self) -> None:
        """
        Open the clients' port and tell the parent.

        Raises:
            ListenFailed, CertificateFault, OSError: something the configuration names cannot be used.
        """
        await self.gateway.start()
        self._serves = True
        self.line.tell("started", self._facts())
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    async def stop(self) -> None:
        """
        Drain.
        """
        self._stopping = True
        await self.gateway.stop()

    def hang_up(self) -> None:
        """
        SIGHUP is the parent's: alone a worker takes no other configuration.
        """

    def kill(self) -> None:
        """
        End at once whatever would outlive this process: nothing.
        """

    # What the parent asks.

    async def _answer(self, name: str, body: Any) -> Any:
        if not self._serves:
            started: Deferred[None] = Deferred()
            self._waiting.append(started)
            await started
        if name == "facts":
            return self._facts()
        if name == "metrics":
            return self.gateway.metrics.render(openmetrics=bool(body))
        if name == "upstreams":
            return [*self.gateway.backends.describe(), *self.gateway.calls.describe()]
        if name == "prepare":
            return self._prepare(body)
        if name == "take":
            return self._take()
        raise LookupError(f"a worker is not asked {name}")

    def _facts(self) -> dict[str, Any]:
        self._sign()
        gateway = self.gateway
        return {
            "instance": gateway.live.node.instance,
            "ready": gateway.ready(),
            "reason": gateway.why_not_ready(),
            "connections": gateway.site.connections,
            "requests": len(gateway.edge.open),
            "digest": gateway.config.digest,
        }

    def _prepare(self, text: str) -> list[str]:
        self._change = None
        try:
            self._change = self.gateway.reloading.prepare(parse(text, str(self._path), os.environ))
        except REFUSALS as error:
            return str(error).splitlines()
        return []

    def _take(self) -> bool:
        change, self._change = self._change, None
        if change is None:
            return False
        change()
        return True

    def _told(self, name: str, _: Any) -> None:
        if name == "drain":
            self._stop()
        elif name == "rotate":
            self._rotate()
        elif name == "forget":
            self._change = None

    def _orphaned(self) -> None:
        if not self._stopping:
            self.gateway.log.warning("worker.orphaned")
            # Whoever starts the gateway again wants the port free: no more is accepted from now on.
            self.gateway.config = replace(self.gateway.config, min_drain_s=0.0)
            self._stop()

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            # As SIGTERM does: the service drains before the reactor ends.
            with suppress(ReactorNotRunning):  # SIGTERM has come a moment ago.
                self._reactor.stop()

    def _crashed(self, name: str, failure: Failure) -> None:
        self.gateway.log.error("background.failed", task=f"worker.{name}", exception=failure.getTraceback())

    def _sign(self) -> None:
        self._logs.sign(instance=self.gateway.live.node.instance)


def _without_operators(config: Config) -> Config:
    """Leave out what the parent does, and share the clients' port also if the file speaks of one worker by now."""
    listen = replace(config.listen, admin=(), metrics=(), api=None, workers=max(2, config.listen.workers))
    return replace(config, listen=listen, console=Console())

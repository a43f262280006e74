"""
Traces put together: what makes spans, what keeps those that wait, and the way to the collector.

Part of the composition root: it names concrete classes, and decides nothing about a request.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed
from twisted.web.http_headers import Headers

from gateway.config.sections import Tracing as Section
from gateway.config.sections import Upstream
from gateway.core.message import Header
from gateway.telemetry.logs import tell
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.otlp import MOST_ANSWER, GrpcSender, HttpSender, Posted
from gateway.telemetry.outgoing import Outgoing, Queue, Sender, Unsent
from gateway.telemetry.span_bytes import request_of
from gateway.telemetry.spans import SCOPE, Spans, resource_of
from gateway.upstream.agent import UpstreamAgent
from gateway.upstream.fetch import TooLarge, send
from gateway.upstream.grpc_target import open_channel, read_target

__all__ = ["Tracing"]

STOP_S: Final = 2.0
"""What spans that still wait at the end may take."""


class Tracing:
    """
    The traces of one instance.

    Args:
        wall: Seconds since the epoch.
        log: A structlog logger.
        spawn: Runs a coroutine that nobody waits for, under a name.
        failed: Told of faults of what runs by itself, with its name.

    Attributes:
        spans: What makes them; recording nothing until a configuration says where they go.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        wall: Callable[[], float],
        metrics: Metrics,
        log: Any,
        spawn: Callable[[str, Coroutine[Any, Any, None]], object],
        failed: Callable[[str, Failure], None],
    ) -> None:
        self._reactor = reactor
        self._metrics = metrics
        self._log = log
        self._spawn = spawn
        self._failed = failed
        self._section: Section | None = None
        self._outgoing: Outgoing | None = None
        self.spans = Spans(reactor.seconds, wall, random.getrandbits, random.random)
        metrics.spans_waiting.from_source(lambda: [((), float(len(self._outgoing or ())))])
        metrics.span_bytes_waiting.from_source(lambda: [((), float(self._outgoing.bytes if self._outgoing else 0))])

    def configure(self, section: Section) -> None:
        """
        Take *section*. A way that stays the same stays with all that waits; another one is given what it has to
        send yet, for a while.
        """
        before, self._section = self._section, section
        if before is None or _way(before) != _way(section):
            old, self._outgoing = self._outgoing, self._made(section)
            if old is not None:
                self._spawn("tracing.stop", old.stop(STOP_S))
        outgoing = self._outgoing
        self.spans.configure(outgoing.put if outgoing is not None else None, section.sample, section.users)

    def _made(self, section: Section) -> Outgoing | None:
        if section.otlp is None:
            return None
        queue = Queue(
            spans=section.queue,
            bytes=section.memory_bytes,
            batch=section.batch,
            delay_s=section.delay_s,
            timeout_s=section.timeout_s,
            retry_s=section.retry_s,
        )
        return Outgoing(
            _sender(self._reactor, section, section.otlp),
            queue,
            self._reactor,
            random.random,
            self._metrics,
            partial(self._told, section.otlp),
            partial(self._failed, "tracing.send"),
        )

    def _told(self, otlp: str, event: str, fields: dict[str, Any]) -> None:
        tell(self._log, event, {"otlp": otlp, **fields})

    async def stop(self) -> None:
        """
        Make no more spans, and send those that wait if the collector takes them at once.
        """
        self.spans.configure(None, 0.0, ())
        if self._outgoing is not None:
            await self._outgoing.stop(STOP_S)


def _way(section: Section) -> Section:
    """*section* as far as it says where spans go and how."""
    return replace(section, sample=0.0, users=(), trust_certificates=True)


def _sender(reactor: Any, section: Section, otlp: str) -> Sender:
    resource, schema = resource_of(section.service, dict(section.attributes))
    pack = partial(request_of, resource, schema, SCOPE)
    headers = {name: value.reveal() for name, value in section.headers}
    compress = section.compression == "gzip"
    parts = urlsplit(otlp)
    if section.protocol == "grpc":
        target = read_target(f"grpcs://{parts.netloc}" if parts.scheme == "https" else parts.netloc)
        upstream = Upstream(name="_otlp", tls=section.tls)
        return GrpcSender(pack, lambda: open_channel(target, upstream), headers, reactor, compress=compress)
    url = otlp if parts.path.strip("/") else f"{otlp.rstrip('/')}/v1/traces"
    return HttpSender(pack, _Poster(reactor, section, url), headers, compress=compress)


class _Poster:
    """The gateway's own client (``telemetry.otlp.Post``)."""

    def __init__(self, reactor: Any, section: Section, url: str) -> None:
        self._reactor = reactor
        self._url = url
        self._agent = UpstreamAgent(reactor, tls=section.tls, timeout_s=section.timeout_s)

    async def __call__(self, headers: Sequence[Header], body: bytes, timeout_s: float) -> Posted:
        lines = Headers()
        for name, value in headers:
            lines.addRawHeader(name, value)
        sending = Deferred.fromCoroutine(send(self._reactor, self._agent, "POST", self._url, lines, body, MOST_ANSWER))
        try:
            fetched = await sending.addTimeout(timeout_s, self._reactor)
        except TookTooLong as error:
            raise Unsent("took too long") from error
        except ResponseFailed as error:
            raise Unsent(str(error.reasons[0].value)) from error
        except (TooLarge, OSError, ValueError) as error:
            raise Unsent(str(error)) from error
        after = next((value for name, value in fetched.headers if name.lower() == b"retry-after"), None)
        return Posted(fetched.status, fetched.body, after)

    def close(self) -> None:
        self._agent.close()

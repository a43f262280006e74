"""
Spans: made by OpenTelemetry's SDK, when they end, and only for traces that are recorded.

What is under way has a place in a trace (``core.trace.TraceContext``), which costs next to nothing and is all that
is passed on. A span is told as a whole at its end, under the ids that were passed on before. So who turns out
to be recorded late, because only the token told who it is, is recorded from the beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
    set_span_in_context,
)

from gateway.core.ids import Bits
from gateway.core.privacy import WHOLE, Privacy
from gateway.core.trace import TraceContext, new
from gateway.telemetry.metrics import package_version
from gateway.telemetry.sampling import Sampling
from gateway.telemetry.span_bytes import SpanBytes

__all__ = [
    "CLIENT",
    "CONSUMER",
    "INTERNAL",
    "PRODUCER",
    "SCOPE",
    "SERVER",
    "Attributes",
    "Kind",
    "Spans",
    "resource_of",
]

Kind = SpanKind
INTERNAL: Final = SpanKind.INTERNAL
SERVER: Final = SpanKind.SERVER
CLIENT: Final = SpanKind.CLIENT
PRODUCER: Final = SpanKind.PRODUCER
CONSUMER: Final = SpanKind.CONSUMER

Attributes = Mapping[str, str | int | bool | float]

SCOPE: Final = ("gateway", package_version(), "https://opentelemetry.io/schemas/1.44.0")
"""Who makes spans, and by which conventions."""

LONGEST: Final = 1024
"""Signs of an attribute: a request's target may be long."""

LIMITS: Final = SpanLimits(
    max_span_attributes=64,
    max_events=0,
    max_links=8,
    max_event_attributes=0,
    max_link_attributes=8,
    max_attribute_length=LONGEST,
    max_span_attribute_length=LONGEST,
)

_ADDRESSES: Final = ("client.address", "network.peer.address")
_USERS: Final = ("user.id",)

STEP_S: Final = 0.001
"""A wall clock that differs by less from the monotonic one has not been set."""


class Spans:
    """
    The spans of one instance.

    Args:
        seconds: The monotonic clock, in which beginnings and ends are told.
        wall: Seconds since the epoch.
        bits: So many random bits, as a number.
        random: Evenly from 0 to 1.

    Attributes:
        on: Somebody takes spans; without anybody no trace is recorded here.
        sampling: Which traces are recorded.
        privacy: How people are written.
    """

    __slots__ = (
        "_bits",
        "_encode",
        "_ids",
        "_offset",
        "_random",
        "_seconds",
        "_take",
        "_tracer",
        "_wall",
        "on",
        "privacy",
        "sampling",
    )

    def __init__(
        self, seconds: Callable[[], float], wall: Callable[[], float], bits: Bits, random: Callable[[], float]
    ) -> None:
        self.on = False
        self.privacy = WHOLE
        self.sampling = Sampling(seconds)
        self._seconds = seconds
        self._wall = wall
        self._bits = bits
        self._random = random
        self._offset = 0.0
        self._take: Callable[[bytes], None] | None = None
        self._ids = _Given()
        self._encode = SpanBytes()
        self._tracer: Tracer | None = None

    @classmethod
    def off(cls) -> Spans:
        """
        Return one that records nothing.
        """
        return cls(lambda: 0.0, lambda: 0.0, lambda _: 1, lambda: 1.0)

    def configure(self, take: Callable[[bytes], None] | None, ratio: float, users: Iterable[str]) -> None:
        """
        Give spans to *take* from now on, as ``SpanBytes`` encodes them; None makes no more.
        """
        self._take = take
        self.on = take is not None
        self.sampling.configure(ratio if self.on else 0.0, users if self.on else ())
        if self.on and self._tracer is None:
            self._tracer = self._make_tracer()

    def _make_tracer(self) -> Tracer:
        # Everything that it would read from the environment is given: what holds stands in the configuration.
        provider = TracerProvider(
            sampler=ALWAYS_ON,  # Decided before; see ``sampling``.
            resource=Resource({}),  # Told once for many spans, by who sends them.
            shutdown_on_exit=False,
            id_generator=self._ids,
            span_limits=LIMITS,
        )
        provider.add_span_processor(_Ended(self._ended))
        name, version, schema = SCOPE
        return provider.get_tracer(name, version, schema)

    def _ended(self, span: ReadableSpan) -> None:
        if self._take is not None:
            self._take(self._encode(span))

    # Where a trace begins.

    def begin(self, user: str = "") -> TraceContext:
        """
        Begin a trace: recorded if its id says so, or if *user* is chosen.
        """
        sampling = self.sampling
        chosen = bool(user and sampling.users and sampling.wants(user))
        return new(self._bits, sampled=chosen, below=sampling.below)

    def draw(self, user: str = "") -> TraceContext | None:
        """
        Begin a trace that is recorded, as often as the share says or if *user* is chosen; most times None.
        """
        sampling = self.sampling
        if self._random() < sampling.ratio or (user and sampling.users and sampling.wants(user)):
            return new(self._bits, sampled=True)
        return None

    def lucky(self, share: float) -> bool:
        """
        True as often as *share* says.
        """
        return self._random() < share

    def child(self, of: TraceContext) -> TraceContext:
        """
        Make the place of a span below *of*; *of* itself where nobody takes spans.
        """
        return of.child(self._bits) if self.on else of

    # Where a span ends.

    def tell(
        self,
        name: str,
        kind: Kind,
        place: TraceContext,
        began: float,
        ended: float,
        attributes: Attributes,
        *,
        parent: TraceContext | None = None,
        remote: bool = False,
        links: Iterable[TraceContext] = (),
        failed: bool = False,
    ) -> None:
        """
        Tell of a span that is over. *place* is what was passed on; its trace is recorded.

        Args:
            began: Seconds of the monotonic clock, as *ended*.
            parent: The span above; None: it is the first of its trace.
            remote: *parent* is somebody else's.
            links: Other spans that it has to do with.
            failed: Its status is an error.
        """
        tracer = self._tracer
        if not self.on or tracer is None:
            return
        if not self.privacy.whole:
            attributes = _private(attributes, self.privacy)
        offset = self._wall() - self._seconds()
        if abs(offset - self._offset) > STEP_S:
            self._offset = offset
        offset = self._offset
        self._ids.trace_id, self._ids.span_id = int(place.trace_id, 16), int(place.parent_id, 16)
        span = tracer.start_span(
            name,
            None if parent is None else set_span_in_context(NonRecordingSpan(_context(parent, remote=remote))),
            kind,
            # Cut here: the SDK cuts as well, and logs a line for each.
            {key: value[:LONGEST] if isinstance(value, str) else value for key, value in attributes.items()},
            [Link(_context(link, remote=True)) for link in links],
            start_time=int((began + offset) * 1e9),
        )
        if failed:
            span.set_status(StatusCode.ERROR)
        span.end(int((max(began, ended) + offset) * 1e9))


def _private(attributes: Attributes, privacy: Privacy) -> Attributes:
    """Write people as *privacy* says."""
    said = dict(attributes)
    for names, written in ((_ADDRESSES, privacy.address), (_USERS, privacy.user)):
        said.update({name: written(str(said[name])) for name in names if name in said})
    return said


def resource_of(service: str, more: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    """
    Say who makes the spans, and by which conventions: this process, with what ``OTEL_RESOURCE_ATTRIBUTES`` adds.
    """
    made = Resource.create({"service.name": service, "service.version": package_version(), **more})
    return dict(made.attributes), made.schema_url


def _context(place: TraceContext, *, remote: bool) -> SpanContext:
    return SpanContext(
        int(place.trace_id, 16),
        int(place.parent_id, 16),
        is_remote=remote,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if place.sampled else TraceFlags.DEFAULT),
        trace_state=TraceState.from_header([place.state.decode("ascii")]) if place.state else None,
    )


class _Given(IdGenerator):
    """The ids that were passed on before the span was made."""

    def __init__(self) -> None:
        self.trace_id = self.span_id = 1

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id


class _Ended(SpanProcessor):
    """Takes spans as they end."""

    def __init__(self, take: Callable[[ReadableSpan], None]) -> None:
        self._take = take

    def on_end(self, span: ReadableSpan) -> None:
        self._take(span)

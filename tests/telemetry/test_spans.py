"""
Spans as collectors read them.
"""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from gateway.core.trace import TraceContext, parse
from gateway.telemetry.span_bytes import SpanBytes, request_of
from gateway.telemetry.spans import CLIENT, LIMITS, SCOPE, SERVER, Spans

WALL = 1.8e9

texts = st.text(max_size=80)
scalars = st.one_of(
    texts, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.sampled_from([0, 1, 1.0])
)
attributes = st.dictionaries(
    st.text(min_size=1, max_size=9), st.one_of(scalars, st.lists(texts, max_size=3)), max_size=6
)
contexts = st.builds(
    lambda trace, span, remote, state: SpanContext(
        trace, span, remote, TraceFlags(1), TraceState([("a", "1")] if state else [])
    ),
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    st.booleans(),
    st.booleans(),
)


class Kept(SpanProcessor):
    """The spans that ended."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        """Keep it."""
        self.spans.append(span)


@given(
    st.lists(
        st.tuples(
            st.text(max_size=20),
            st.sampled_from(SpanKind),
            attributes,
            st.none() | contexts,
            st.lists(st.tuples(contexts, attributes), max_size=2),
            st.sampled_from([None, StatusCode.ERROR, StatusCode.OK]),
        ),
        max_size=5,
    )
)
def test_spans_are_encoded_as_the_library_does(described: list[Any]) -> None:
    """
    Whatever a span says, a collector reads the same from our bytes as from those of OpenTelemetry's own encoder.
    """
    resource = Resource({"service.name": "gateway", "n": 3})
    provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False, span_limits=LIMITS)
    kept = Kept()
    provider.add_span_processor(kept)
    name, version, schema = SCOPE
    tracer = provider.get_tracer(name, version, schema)
    for title, kind, given_, parent, links, status in described:
        above = set_span_in_context(NonRecordingSpan(parent)) if parent is not None else None
        span = tracer.start_span(title, above, kind, given_, [Link(*link) for link in links], start_time=7)
        if status is not None:
            span.set_status(status)
        span.end(9)
    encode = SpanBytes()
    ours = request_of(dict(resource.attributes), "", SCOPE, [encode(span) for span in kept.spans])
    theirs = encode_spans(kept.spans)
    if kept.spans:
        assert ExportTraceServiceRequest.FromString(ours) == theirs


class Taken:
    """Spans of the gateway, and what a collector would read."""

    def __init__(self) -> None:
        self.now = 100.0
        self.step = 0.0
        self.frames: list[bytes] = []
        self.spans = Spans(
            lambda: self.now, lambda: WALL + self.now + self.step, random.Random(5).getrandbits, lambda: 0.5
        )
        self.spans.configure(self.frames.append, 1.0, ())

    def read(self) -> list[Any]:
        """The spans told so far."""
        request = ExportTraceServiceRequest.FromString(request_of({}, "", SCOPE, self.frames))
        return list(request.resource_spans[0].scope_spans[0].spans)


def test_a_span_is_told_under_the_ids_that_were_passed_on() -> None:
    """
    A root, a child and a span below a stranger's: trace, parents, times and links are those of their places.
    """
    taken = Taken()
    spans = taken.spans
    root = spans.begin()
    child = spans.child(root)
    stranger = parse(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", [b"rojo=1"])
    assert stranger is not None
    below = spans.child(stranger)
    spans.tell("child", CLIENT, child, 100.5, 100.75, {"a": 1}, parent=root, failed=True)
    spans.tell("root", SERVER, root, 100.0, 101.0, {"b": "x" * 5000}, links=[stranger])
    spans.tell("below", SERVER, below, 100.0, 101.0, {}, parent=stranger, remote=True)
    first, second, third = taken.read()
    assert first.trace_id.hex() == second.trace_id.hex() == root.trace_id
    assert (first.span_id.hex(), first.parent_span_id.hex()) == (child.parent_id, root.parent_id)
    assert (second.span_id.hex(), second.parent_span_id) == (root.parent_id, b"")
    assert [link.span_id.hex() for link in second.links] == ["b7ad6b7169203331"]
    assert (third.trace_id.hex(), third.parent_span_id.hex()) == (stranger.trace_id, stranger.parent_id)
    assert (third.span_id.hex(), third.trace_state) == (below.parent_id, "rojo=1")
    assert abs(first.end_time_unix_nano - first.start_time_unix_nano - 250_000_000) < 1000
    assert abs(second.start_time_unix_nano - (WALL + 100) * 1e9) < 1000
    assert (first.status.code, second.status.code) == (2, 0)
    assert len(second.attributes[0].value.string_value) == 1024
    assert (third.flags, first.flags) == (0x300, 0x100)


def test_whatever_is_said_can_be_sent() -> None:
    """
    Half a character in a name from outside is written as its escape.
    """
    taken = Taken()
    taken.spans.tell("s", SERVER, taken.spans.begin(), 100.0, 101.0, {"user.id": "a\ud800"})
    assert taken.read()[0].attributes[0].value.string_value == "a\\ud800"


def test_clocks_that_differ_by_little_move_no_span() -> None:
    """
    Spans of one trace stand in one order, whatever the two clocks are read as; a clock that was set is followed.
    """
    taken = Taken()
    spans = taken.spans
    for taken.step in (0.0, 0.0004, -0.0004, 60.0):
        spans.tell("s", SERVER, spans.begin(), 100.0, 99.0, {})
    starts = [span.start_time_unix_nano for span in taken.read()]
    assert starts[0] == starts[1] == starts[2]
    assert abs(starts[3] - starts[2] - 60e9) < 1000
    assert all(span.end_time_unix_nano == span.start_time_unix_nano for span in taken.read())


def test_nothing_is_recorded_for_nobody() -> None:
    """
    Without a collector no trace is recorded, whoever is chosen, and a span that is told is nothing.
    """
    spans = Spans.off()
    assert spans.draw("alice") is None
    assert not spans.begin("alice").sampled
    spans.tell("s", SERVER, TraceContext("1" * 32, "2" * 16, sampled=True), 0.0, 1.0, {})
    taken = Taken()
    taken.spans.configure(None, 1.0, ["alice"])
    assert taken.spans.draw("alice") is None
    assert not taken.spans.begin("alice").sampled


def test_chosen_users_are_drawn() -> None:
    """
    Traces begin recorded for chosen users whatever the share is.
    """
    taken = Taken()
    taken.spans.configure(taken.frames.append, 0.0, ["alice"])
    alice, bob = taken.spans.draw("alice"), taken.spans.draw("bob")
    assert alice is not None
    assert alice.sampled
    assert bob is None
    assert taken.spans.begin("alice").sampled
    assert not taken.spans.begin("bob").sampled

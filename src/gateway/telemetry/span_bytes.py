"""
Spans as bytes for OTLP: the SDK's span to the message that collectors read.

One after the other as they end, so that what waits is bytes and nothing has to be encoded in one go: a batch of
spans at the library's encoder holds the interpreter, and with it every request, for tens of milliseconds. What
a span says was mostly said by others before (methods, routes, names), so it is copied and not made again. A
test holds this against the library's encoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, SpanFlags, Status
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind

__all__ = ["SpanBytes", "request_of"]

_REMEMBERED: Final = 4096
_LONGEST_REMEMBERED: Final = 64

_RESOURCE_SPANS: Final = 1
_SCOPE_SPANS: Final = 2
"""Numbers of fields, of ``ExportTraceServiceRequest`` and ``ResourceSpans``."""

_KINDS: Final = {
    SpanKind.INTERNAL: Span.SPAN_KIND_INTERNAL,
    SpanKind.SERVER: Span.SPAN_KIND_SERVER,
    SpanKind.CLIENT: Span.SPAN_KIND_CLIENT,
    SpanKind.PRODUCER: Span.SPAN_KIND_PRODUCER,
    SpanKind.CONSUMER: Span.SPAN_KIND_CONSUMER,
}
_HERE: Final = int(SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK)
_AFAR: Final = _HERE | int(SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK)


class SpanBytes:
    """
    Encodes spans; what was said before is remembered, within a bound.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[str, Any], KeyValue] = {}

    def __call__(self, span: ReadableSpan) -> bytes:
        """
        Encode *span*: ``ScopeSpans`` with nothing else. Any number of them joined are one ``ScopeSpans``.
        """
        context, parent, status = span.get_span_context(), span.parent, span.status
        assert context is not None, "of a tracer"
        message = Span(
            trace_id=context.trace_id.to_bytes(16, "big"),
            span_id=context.span_id.to_bytes(8, "big"),
            trace_state=context.trace_state.to_header(),
            parent_span_id=parent.span_id.to_bytes(8, "big") if parent is not None else b"",
            flags=_flags(parent),
            name=span.name,
            kind=_KINDS[span.kind],
            start_time_unix_nano=span.start_time or 0,
            end_time_unix_nano=span.end_time or 0,
            attributes=self._attributes(span.attributes or {}),
            dropped_attributes_count=span.dropped_attributes,
            links=[
                Span.Link(
                    trace_id=link.context.trace_id.to_bytes(16, "big"),
                    span_id=link.context.span_id.to_bytes(8, "big"),
                    attributes=self._attributes(link.attributes or {}),
                    flags=_flags(link.context),
                )
                for link in span.links
            ],
            status=Status(code=Status.StatusCode.ValueType(status.status_code.value), message=status.description or ""),
        )
        return ScopeSpans(spans=[message]).SerializeToString()

    def _attributes(self, attributes: Mapping[str, Any]) -> list[KeyValue]:
        known = self._known
        made = []
        for pair in attributes.items():
            name, value = pair
            # Of the others 1, 1.0 and True would be found for each other.
            kept = value.__class__ is str or value.__class__ is int
            message = known.get(pair) if kept else None
            if message is None:
                message = KeyValue(key=name, value=_value(value))
                if kept and (value.__class__ is int or len(value) <= _LONGEST_REMEMBERED):
                    if len(known) >= _REMEMBERED:
                        known.clear()
                    known[pair] = message
            made.append(message)
        return made


def request_of(
    resource: Mapping[str, Any], resource_schema: str, scope: tuple[str, str, str], spans: Iterable[bytes]
) -> bytes:
    """
    Make an ``ExportTraceServiceRequest`` of what ``SpanBytes`` made.

    Args:
        scope: Name and version of who made them, and the URL of the conventions they keep.
    """
    name, version, schema = scope
    of_resource = ResourceSpans(
        resource=Resource(attributes=[KeyValue(key=key, value=_value(value)) for key, value in resource.items()]),
        schema_url=resource_schema,
    )
    of_scope = ScopeSpans(scope=InstrumentationScope(name=name, version=version), schema_url=schema)
    # Parts of one message, one after the other, are the message of all parts: so the spans need not be read again.
    scope_spans = of_scope.SerializeToString() + b"".join(spans)
    return _field(_RESOURCE_SPANS, of_resource.SerializeToString() + _field(_SCOPE_SPANS, scope_spans))


def _field(number: int, data: bytes) -> bytes:
    """Write *data* as field *number* of a message: tag, length in groups of seven bits, bytes."""
    length, groups = len(data), bytearray()
    while length > 0x7F:
        groups.append(length & 0x7F | 0x80)
        length >>= 7
    groups.append(length)
    return bytes((number << 3 | 2,)) + bytes(groups) + data


def _flags(context: SpanContext | None) -> int:
    return _AFAR if context is not None and context.is_remote else _HERE


def _value(value: Any) -> AnyValue:
    # A truth is a number too.
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, str):
        try:
            return AnyValue(string_value=value)
        except UnicodeEncodeError:  # Half a character: JSON has them, in a token's claims for instance.
            return AnyValue(string_value=value.encode("utf-8", "backslashreplace").decode())
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    return AnyValue(array_value=ArrayValue(values=[_value(each) for each in value]))

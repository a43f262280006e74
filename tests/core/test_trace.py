"""
W3C trace context and request ids: what is taken over, what is made.
"""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.ids import acceptable, request_id
from gateway.core.message import Header, RequestHead
from gateway.core.trace import TraceContext, new, parse, read

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01".encode()

bits = random.Random(7).getrandbits


def head(*headers: Header) -> RequestHead:
    return RequestHead(b"GET", b"/", list(headers), {name.lower(): value for name, value in headers})


@pytest.mark.parametrize(
    ("value", "sampled"),
    [
        (GOOD, True),
        (GOOD[:-2] + b"00", False),
        (GOOD[:-2] + b"03", True),
        (GOOD[:-2] + b"fe", False),
        (b"01" + GOOD[2:], True),
        (b"fe" + GOOD[2:], True),
        (b"cc" + GOOD[2:] + b"-what-comes-later", True),
        (b"01" + GOOD[2:] + b"-", True),
    ],
)
def test_valid_parents_are_read(value: bytes, sampled: bool) -> None:
    """
    Version 00 exactly, and the known part of later versions.
    """
    context = parse(value)
    assert context is not None
    assert (context.trace_id, context.parent_id, context.sampled) == (TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"00",
        b"ff" + GOOD[2:],
        GOOD.upper(),
        GOOD.replace(b"4bf9", b"4BF9"),
        GOOD[:-1],
        GOOD + b"1",
        GOOD + b"-",
        GOOD + b"-00",
        GOOD + b" ",
        b" " + GOOD,
        b"01" + GOOD[2:] + b"x",
        b"00-" + b"0" * 32 + b"-" + SPAN.encode() + b"-01",
        b"00-" + TRACE.encode() + b"-" + b"0" * 16 + b"-01",
        GOOD.replace(b"-", b"_"),
        GOOD.replace(b"a", b"g"),
        GOOD[:-2] + b"0x",
        b"0-" + GOOD[3:],
        GOOD + b"," + GOOD,
        b"01" + GOOD[2:-2] + b".1",
    ],
)
def test_invalid_parents_are_none(value: bytes) -> None:
    """
    Version ff, upper case, wrong length, zero ids and trailing parts of version 00 are no context.
    """
    assert parse(value, [b"a=1"]) is None


@pytest.mark.parametrize(
    ("lines", "state"),
    [
        ([], b""),
        ([b"rojo=00f067aa0ba902b7"], b"rojo=00f067aa0ba902b7"),
        ([b"rojo=1,congo=2"], b"rojo=1,congo=2"),
        ([b"rojo=1", b"congo=2"], b"rojo=1,congo=2"),
        ([b" rojo=1 , ,\tcongo=2 "], b"rojo=1,congo=2"),
        ([b"fw529a3039@dt=FfAoy"], b"fw529a3039@dt=FfAoy"),
        ([b"1a@v=x"], b"1a@v=x"),
        ([b"a_-*/0=!~ x"], b"a_-*/0=!~ x"),
        ([b"1a=x"], b""),
        ([b"A=x"], b""),
        ([b"a=x=y"], b""),
        ([b"a=\xff"], b""),
        ([b"a=b\x01"], b""),
        ([b"a="], b""),
        ([b"=a"], b""),
        ([b"a"], b""),
        ([b"a=1,a=2"], b""),
        ([b"a@b@c=1"], b""),
        ([b"a" * 257 + b"=1"], b""),
        ([b"a=" + b"x" * 257], b""),
        ([b"a=" + b"x" * 256], b"a=" + b"x" * 256),
        ([b",".join(b"a%d=1" % number for number in range(32))], b",".join(b"a%d=1" % n for n in range(32))),
        ([b",".join(b"a%d=1" % number for number in range(33))], b""),
        ([b"a=" + b"x" * 250 + b",b=" + b"x" * 250 + b",c=" + b"x" * 20], b""),
    ],
)
def test_state_passes_whole_or_not_at_all(lines: list[bytes], state: bytes) -> None:
    """
    A valid state passes as one line; an invalid one is dropped and the parent kept.
    """
    context = parse(GOOD, lines)
    assert context is not None
    assert context.state == state


def test_head_may_hold_one_parent() -> None:
    """
    Two parents are none; a state without a parent is nothing.
    """
    assert read(head((b"traceparent", GOOD), (b"Traceparent", GOOD))) is None
    assert read(head((b"tracestate", b"a=1"))) is None
    assert read(head((b"Accept", b"*/*"))) is None
    context = read(head((b"Traceparent", GOOD), (b"tracestate", b"a=1"), (b"TraceState", b"b=2")))
    assert context is not None
    assert context.state == b"a=1,b=2"


def test_children_stay_in_their_trace() -> None:
    """
    A child has its trace's id, decision and state, and a span id of its own.
    """
    parent = parse(GOOD, [b"a=1"])
    assert parent is not None
    child = parent.child(bits)
    assert (child.trace_id, child.sampled, child.state) == (TRACE, True, b"a=1")
    assert child.parent_id != SPAN
    assert child.block() == b"traceparent: %b\r\ntracestate: a=1\r\n" % child.header()
    assert TRACE in repr(child)


def test_new_traces_are_valid() -> None:
    """
    What is made here is read again as it was made, also when the random bits are all zero.
    """
    for source in (bits, lambda _count: 0):
        for sampled in (True, False):
            made = new(source, sampled=sampled)
            again = parse(made.header())
            assert again is not None
            assert again.header() == made.header()
            assert made.block() == b"traceparent: " + made.header() + b"\r\n"
            assert parse(made.child(source).header()) is not None


@given(st.binary(max_size=70), st.lists(st.binary(max_size=40), max_size=4))
def test_any_bytes_are_read_or_none(value: bytes, lines: list[bytes]) -> None:
    """
    Whatever comes, the result is a context that can be passed on, or none.
    """
    for candidate in (value, GOOD + value, value[:2] + GOOD[2:]):
        context = parse(candidate, lines)
        assert context is None or isinstance(context, TraceContext)
        if context is not None:
            assert re.fullmatch(rb"traceparent: [0-9a-f-]{55}\r\n(tracestate: [!-~][ -~]*\r\n)?", context.block())


def test_request_ids_are_32_digits() -> None:
    """
    An id is 32 lower-case hexadecimal digits, however small the number drawn.
    """
    assert re.fullmatch(r"[0-9a-f]{32}", request_id(bits))
    assert request_id(lambda _count: 1) == "0" * 31 + "1"
    assert acceptable(request_id(bits).encode())


@pytest.mark.parametrize(
    ("value", "taken"),
    [
        (b"a", True),
        (b"0f8fad5b-d9cb-469f-a165-70867728950e", True),
        (b"Root=1-67891233-abcdef012345678912345678", True),
        (b"a" * 128, True),
        (b"a" * 129, False),
        (b"", False),
        (b"a b", False),
        (b"a\n", False),
        (b'a"', False),
        (b"a,b", False),
        (b"<a>", False),
        (b"\xff", False),
        (b"\x1b[2J", False),
    ],
)
def test_only_plain_ids_are_taken_over(value: bytes, taken: bool) -> None:
    """
    An id from outside is short and needs no escaping in a log, a header or a URL.
    """
    assert acceptable(value) is taken

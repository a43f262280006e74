"""
A backend that is told of sessions, by a configured call: gRPC, or HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from gateway.core.trace import TraceContext
from gateway.core.verdicts import ClientError
from gateway.ports.backends import Backend, Facts
from gateway.ports.events import NotTaken, Refusal, ToldEvent

__all__ = ["BackendSink"]

LONGEST: Final = 300
"""Signs of a reason that are logged."""

_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Why an answer over HTTP is no JSON; its status was good."""


class _Refused(Struct):
    id: str = ""
    reason: str = ""
    try_again: bool = False
    tryAgain: bool = False  # noqa: N815  # as Protobuf writes it in JSON


class _Answer(Struct):
    refused: list[_Refused] = []


_answer: Final = msgspec.json.Decoder(_Answer).decode


class BackendSink:
    """
    The ``ports.events.EventSink`` of a backend.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def tell(self, events: Sequence[ToldEvent], key: str, trace: TraceContext) -> Sequence[Refusal]:
        """
        Call it.
        """
        body = b'{"events":[%b]}' % b",".join([event.body for event in events])
        facts: Facts = {
            "events": {"count": len(events)},
            "command": {"idempotency_key": key, "own_key": True},
        }
        try:
            answer = await self._backend.ask(facts, body, None, trace)
        except ClientError as error:
            if isinstance(error.__cause__, _UNREADABLE):
                return ()  # It answered that all is well, in words of its own.
            reason = str(error.__cause__ or error) or type(error.__cause__).__name__
            raise NotTaken(reason[:LONGEST], refused=not error.temporary) from error
        try:
            refused = _answer(answer).refused if answer else []
        except msgspec.DecodeError:
            refused = []  # Another's answer to a call that was taken.
        return [Refusal(each.id, each.reason[:LONGEST], each.try_again or each.tryAgain) for each in refused]

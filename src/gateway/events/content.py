"""
What is told of a session: made from its record when it begins, goes on or ends, and completed when it is told.

In between it waits in the stores' outbox, which knows when it happened, when the session began and how
often it went on, all by one clock.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from gateway.config.events_section import Events
from gateway.core.client_types import type_by_name, type_by_sdk
from gateway.core.privacy import Privacy
from gateway.core.session_use import SessionUse
from gateway.events.agents import Agents
from gateway.ports.events import ToldEvent
from gateway.ports.sessions import Event, OutboxEvent, SessionRecord

__all__ = ["ENDED", "RESUMED", "STARTED", "Content", "told_of", "traceparent_of"]

STARTED: Final = "SESSION_STARTED"
RESUMED: Final = "SESSION_RESUMED"
ENDED: Final = "SESSION_ENDED"

LOST_CODE: Final = 1006
"""Of a connection whose instance died: abnormal closure (RFC 6455, 7.4.1)."""


class _Written(Struct, omit_defaults=True):
    """What is written of an event when it happens, in the fields of ``event.v1.Event``."""

    kind: str
    user: str = ""
    accuracy_s: float = 0.0
    cause: str = ""
    close_code: int = 0
    client_type: str = ""
    os: str = ""
    browser: str = ""
    app_version: str = ""
    sdk_name: str = ""
    sdk_version: str = ""
    transport: str = ""
    instance: str = ""
    connection: str = ""
    country: str = ""
    address: str = ""
    frames_in: int = 0
    frames_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    channels: tuple[str, ...] = ()
    subscriptions: int = 0
    traceparent: str = ""


class _Kind(Struct):
    kind: str
    traceparent: str = ""


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode
_kind: Final = msgspec.json.Decoder(_Kind).decode


class Content:
    """
    Writes what is told (``node.sessions.SessionEvents``); nothing while nobody is to be told.

    Args:
        lost_s: So much later than its last sign of life an instance may have died.
        privacy: How people are written.
    """

    def __init__(self, lost_s: float, privacy: Privacy) -> None:
        self._lost_s = lost_s
        self._privacy = privacy
        self._agents: Agents | None = None
        self._types: dict[str, str] = {}

    def configure(self, section: Events, *, on: bool) -> None:
        """
        Write from now on as *section* has it, or nothing.
        """
        self._types = dict(section.client_types)
        if not on:
            self._agents = None
        elif self._agents is None:
            self._agents = Agents()

    def client_type(self, name: str, user_agent: str) -> str:
        """
        Say what kind of client calls itself *name*. Where nothing is written its user agent is not looked at.
        """
        if self._agents is None:
            return type_by_name(name, self._types) or type_by_sdk(name)
        return self._agents.read(name, user_agent, self._types).client_type

    def started(self, record: SessionRecord) -> Event | None:
        """
        Of a session that begins.
        """
        return self._event(f"{record.id}-started", record, STARTED)

    def resumed(self, record: SessionRecord) -> Event | None:
        """
        Of one that goes on, over the connection that *record* has.
        """
        return self._event(f"{record.client}-resumed", record, RESUMED)

    def ended(self, record: SessionRecord, cause: str) -> Event | None:
        """
        Of one that is over.
        """
        use = SessionUse.decode(record.past)
        lost = cause == "instance_lost"
        return self._event(
            f"{record.id}-ended",
            record,
            ENDED,
            cause=cause,
            close_code=LOST_CODE if lost else use.code,
            accuracy_s=self._lost_s if lost else use.late_s,
            frames_in=use.frames_in,
            frames_out=use.frames_out,
            bytes_in=use.bytes_in,
            bytes_out=use.bytes_out,
            channels=use.patterns,
            subscriptions=use.subscriptions,
        )

    def _event(self, id_: str, record: SessionRecord, kind: str, **more: Any) -> Event | None:
        if self._agents is None:
            return None
        facts = record.facts
        name = str(facts.get("name", ""))
        agent = self._agents.read(name, str(facts.get("user_agent", "")), self._types)
        written = _Written(
            kind,
            user=self._privacy.user(record.user),
            client_type=agent.client_type,
            os=agent.os,
            browser=agent.browser,
            app_version=facts.get("app_version", ""),
            sdk_name=name,
            sdk_version=facts.get("version", ""),
            transport=facts.get("transport", ""),
            instance=record.instance,
            connection=record.client,
            country=facts.get("country", ""),
            address=self._privacy.address(str(facts.get("address", ""))),
            traceparent=facts.get("trace", ""),
            **more,
        )
        return Event(id_, _encode(written))


def told_of(event: OutboxEvent) -> ToldEvent:
    """
    Complete *event* for whoever is told.

    Raises:
        ValueError: a release wrote it that does so otherwise.
    """
    try:
        body = _decode(event.data)
        kind = str(body["kind"])
    except (msgspec.DecodeError, KeyError) as error:
        raise ValueError(str(error)) from error
    body |= {
        "id": event.id,
        "session": event.session,
        "at": _written(event.at),
        "started_at": _written(event.started_at),
        "resumes": event.resumes,
    }
    if kind == ENDED:
        body["ended_at"] = body["at"]
        body["duration_s"] = round(max(0.0, event.at - event.started_at), 3)
    return ToldEvent(event.id, kind, event.session, _encode(body))


def traceparent_of(event: OutboxEvent) -> str:
    """
    Read in which trace it happened; empty if that is not recorded.
    """
    if b'"traceparent"' not in event.data:
        return ""
    try:
        return _kind(event.data).traceparent
    except msgspec.DecodeError:
        return ""


def _written(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

"""
The section of events: who is told when sessions begin, go on and end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gateway.config.fields import MIB
from gateway.config.fields import key as _
from gateway.config.realtime_sections import BackendCall

__all__ = ["EVENT_CALL", "Events"]

EVENT_CALL: Final = "event.v1.EventService/PublishEvents"
"""The gateway's own interface: an upstream that is only asked this needs no descriptors."""


@dataclass(frozen=True, slots=True)
class Events(BackendCall):
    """Who is told when sessions begin, go on and end: a backend, with `call` or `http`, or a Redis stream. Without any nobody is."""

    stream: str = field(
        default="",
        metadata=_("Name of a stream in the store's Redis, instead of a backend; its key is in docs/events.md."),
    )
    stream_length: int = field(default=1_000_000, metadata=_("About how many entries that stream keeps."))
    batch: int = field(default=100, metadata=_("Events told together at most.", most=500))
    interval_s: float = field(
        default=1.0,
        metadata=_("How often what happened is told, while there is less than a batch.", least=0.05, most=60),
    )
    retry_max_s: float = field(
        default=30.0, metadata=_("The longest pause between attempts, while nobody takes events.", least=0.1, most=600)
    )
    attempts: int = field(
        default=5, metadata=_("After so many refusals an event is given up, if others are taken meanwhile.")
    )
    most_waiting: int = field(
        default=200_000,
        metadata=_(
            "Events that wait, a 64th of them for each partition of sessions; those beyond are lost and counted."
        ),
    )
    memory_bytes: int = field(
        default=64 * MIB,
        metadata=_(
            "What they may take without Redis, in memory and again in the spool; likewise. With Redis its `maxmemory` decides."
        ),
    )
    spool: Path | None = field(
        default=None,
        metadata=_(
            "Folder in which an instance without Redis writes down sessions and events, so that a crash loses neither. "
            "It belongs to one process; with Redis it is not used.",
            folder=True,
        ),
    )
    flush_timeout_s: float = field(
        default=5.0, metadata=_("At the end of an instance, how long it tells what is left.", least=0, most=60)
    )
    country_header: str = field(
        default="", metadata=_("Header in which a trusted proxy says the client's country: `cf-ipcountry`.")
    )
    client_types: tuple[tuple[str, str], ...] = field(
        default=(),
        metadata=_(
            'What kind of client has this name in its `connect`: `{ "tetris-ps5" = "console" }`. One of `web`, '
            "`mobile`, `desktop`, `console`, `server`, `bot`, `other`.",
            table=True,
        ),
    )

"""
Events: one place where they go, and one that can take them.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.config.checks.realtime import check_backend
from gateway.config.sections import Config
from gateway.config.units import format_duration
from gateway.config.walk import Walk, suggest
from gateway.core.client_types import CLIENT_TYPES
from gateway.core.store_url import BadStoreUrl, read_store_url

__all__ = ["EVENT_ROOTS", "check"]

EVENT_ROOTS: Final = frozenset(("events",))
"""What expressions of the call may name."""

MOST_TIMEOUT_S: Final = 10.0
"""Shorter than a partition stays with whoever tells its events: nobody else begins while a call is under way."""

_stream = re.compile(r"[A-Za-z0-9_.:-]{1,64}").fullmatch
_header = re.compile(r"[A-Za-z0-9-]{1,64}").fullmatch


def check(config: Config, walk: Walk) -> None:
    """
    Report on *walk* what does not fit.
    """
    section = config.events
    path = ("events",)
    asks = bool(section.upstream or section.call or section.http)
    if asks and section.stream:
        walk.fault(path, "names a backend and a stream: events go to one place", ("events", "stream"))
    elif asks:
        check_backend(config, section, path, EVENT_ROOTS, (), walk)
        if section.http and not section.http.startswith("POST "):
            walk.fault(("events", "http"), f"{section.http!r}: events are sent by POST")
    elif section.stream:
        _redis_stream(config, section.stream, walk)
    elif section.set:
        walk.fault(("events", "set"), "is only used where a backend is told", ("events", "upstream"))
    timeout_s = _timeout_s(config)
    if timeout_s > MOST_TIMEOUT_S:
        walk.fault(
            ("events", "timeout"),
            f"{format_duration(timeout_s)}, its own or its upstream's, is more than {format_duration(MOST_TIMEOUT_S)}: "
            "another instance would begin to tell the same",
        )
    if section.spool is not None and section.spool.exists() and not section.spool.is_dir():
        walk.fault(("events", "spool"), f"{section.spool} is no folder")
    if section.country_header and not _header(section.country_header):
        walk.fault(("events", "country_header"), f"{section.country_header!r} is no name of a header")
    for name, kind in section.client_types:
        if kind not in CLIENT_TYPES:
            walk.fault(("events", "client_types", name), f"{kind!r} is no kind of client{suggest(kind, CLIENT_TYPES)}")


def _redis_stream(config: Config, stream: str, walk: Walk) -> None:
    if not _stream(stream):
        walk.fault(("events", "stream"), "letters, digits and _ . : - only, at most 64")
    try:
        shared = read_store_url(config.store.url).shared
    except BadStoreUrl:
        return
    if not shared:
        walk.fault(("events", "stream"), "stands in the store's Redis, and the store is memory://", ("store", "url"))


def _timeout_s(config: Config) -> float:
    section = config.events
    if section.timeout_s is not None:
        return section.timeout_s
    return next((upstream.timeout_s for upstream in config.upstream if upstream.name == section.upstream), 0.0)

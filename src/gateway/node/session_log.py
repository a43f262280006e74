"""
One line for each session that ends, written by whichever instance ends it.

Of one that ended badly it has what its last connection did last, with the ids by which the lines of its requests are found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from gateway.core.session_use import SessionUse
from gateway.ports.sessions import SessionRecord

__all__ = ["SessionLog"]

_LONGEST: Final = 256
_TOLD: Final = ("name", "version", "app_version", "transport", "address", "country")


class SessionLog:
    """
    The witness (``node.sessions.SessionWitness``) that writes lines.

    Args:
        log: A structlog logger.
        client_type: Says the kind of client by its name and its user agent.
    """

    def __init__(self, log: Any, client_type: Callable[[str, str], str]) -> None:
        self._log = log
        self._client_type = client_type

    def started(self, record: SessionRecord) -> None:
        """Nothing: who comes is told by the line of the opening request."""

    def ended(self, record: SessionRecord, cause: str, ended_at: float) -> None:
        """
        Write the line.
        """
        use, facts = SessionUse.decode(record.past), record.facts
        name, agent = str(facts.get("name", "")), str(facts.get("user_agent", ""))
        said: dict[str, Any] = {
            "session": record.id,
            "user": record.user,
            "connection": record.client,
            "cause": cause,
            "code": use.code,
            "duration_s": round(max(0.0, ended_at - record.started_at), 3),
            "client_type": self._client_type(name, agent),
            **{field: str(facts.get(field, ""))[:_LONGEST] for field in _TOLD},
            "ua": agent[:_LONGEST],
            "held_by": record.instance,
            "resumes": record.resumes,
            "frames_in": use.frames_in,
            "frames_out": use.frames_out,
            "bytes_in": use.bytes_in,
            "bytes_out": use.bytes_out,
            "subscriptions": use.subscriptions,
            "channels": len(use.patterns),
            "request_id": use.request_id,
            "trace_id": use.trace_id,
            "operations": use.operations,
        }
        self._log.info("session.ended", **{field: value for field, value in said.items() if value not in ("", ())})

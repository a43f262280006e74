"""
What happened to sessions while the store was away, until it can be written.

Kept in this process, in order and within a bound; written when the store is back, each step with the
time at which it happened. What does not fit is lost and counted. A step that was half done is done
again: stores make the same step once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, Literal

from gateway.node.together import together
from gateway.ports.realtime import StoreUnavailable
from gateway.ports.sessions import Contested, Event, SessionRecord, SessionStore

__all__ = ["Journal", "Step"]

AT_ONCE: Final = 100
"""Steps that are written together: few enough that how long ago they were made still holds when they arrive."""


@dataclass(frozen=True, slots=True)
class Step:
    """
    One thing that happened to a session.

    Attributes:
        at: When, in seconds of the clock.
        cause: Why it was suspended.
        window_s: How long it may be resumed after that.
    """

    kind: Literal["open", "suspend", "close"]
    record: SessionRecord
    at: float
    event: Event | None = None
    cause: str = ""
    window_s: float = 0.0


class Journal:
    """
    The steps that wait.

    Args:
        seconds: A monotonic clock.
        lost: Called with the kind and why, for each step that will never be written.
    """

    def __init__(
        self, store: SessionStore, seconds: Callable[[], float], *, most: int, lost: Callable[[str, str], None]
    ) -> None:
        self._store = store
        self._seconds = seconds
        self._most = most
        self._lost = lost
        self._steps: deque[Step] = deque()
        self._writing = False
        self.gaps = False
        """Something was lost since the last time that everything was written."""

    def __len__(self) -> int:
        return len(self._steps)

    def put(self, step: Step) -> None:
        """
        Keep *step* behind the others.
        """
        if len(self._steps) >= self._most:
            self.gaps = True
            self._lost(step.kind, "overflow")
        else:
            if step.kind != "open":
                # The rest is of no use any more, and is most of what waiting costs.
                step = replace(step, record=replace(step.record, facts={}, note=b""))
            self._steps.append(step)

    async def write(self, instance: str) -> None:
        """
        Write what waits, as *instance*; what cannot be written now stays.

        Raises:
            StoreUnavailable: the store is away again.
        """
        if self._writing:
            return
        self._writing = True
        try:
            while self._steps:
                some = list(islice(self._steps, AT_ONCE))
                await self._write(some, instance)
                for _ in some:
                    self._steps.popleft()
        finally:
            self._writing = False

    async def _write(self, steps: Sequence[Step], instance: str) -> None:
        """Write steps of different sessions at once, those of one session one after the other."""
        by_session: dict[str, list[Step]] = {}
        for step in steps:
            by_session.setdefault(step.record.id, []).append(step)
        await together(self._in_turn(some, instance) for some in by_session.values())

    async def _in_turn(self, steps: Sequence[Step], instance: str) -> None:
        for step in steps:
            try:
                await self._make(step, instance)
            except StoreUnavailable:
                raise
            except Exception:
                # The store cannot make sense of it, and never will: the steps behind it must not wait for ever.
                self._lost(step.kind, "refused")

    async def _make(self, step: Step, instance: str) -> None:
        record, store = step.record, self._store
        ago_s = max(0.0, self._seconds() - step.at)
        if step.kind == "open":
            opened = await store.open(replace(record, instance=instance), ago_s=ago_s, resume=False, event=step.event)
            assert not isinstance(opened, Contested), "not asked for"
        elif step.kind == "suspend":
            await store.suspend(
                record.id,
                record.client,
                step.window_s,
                cause=step.cause,
                ago_s=ago_s,
                past=record.past,
                event=step.event,
            )
        else:
            await store.close(record.id, record.client, ago_s=ago_s, event=step.event)

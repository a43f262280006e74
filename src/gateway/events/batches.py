"""
Which events are told together, and which of them is to blame if that fails.

Pure bookkeeping. While nobody takes events none is given up, however long that lasts. An event that fails
alone again and again, each time while others are taken, is the one that cannot be taken.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from gateway.ports.sessions import OutboxEvent

__all__ = ["Batches"]

PATIENCE = 3
"""So often whoever is told may be silent to a batch, before it is tried with a single event."""


class Batches:
    """
    How much is told at once.

    Args:
        most: Events of a batch, at most.
        attempts: How often an event may fail alone while others are taken.
    """

    def __init__(self, most: int, attempts: int) -> None:
        self.most = most
        self._attempts = attempts
        self._size = most
        self._silences = 0
        self._skip = 0
        self._suspects: dict[str, int] = {}

    def next(self, waiting: Sequence[OutboxEvent], held: Collection[str]) -> Sequence[OutboxEvent]:
        """
        Choose of what is *waiting*, in its order, what is told next; nothing of sessions that are *held*.

        What failed alone before, and what comes behind it in its session, waits until nothing else is left.
        """
        free = [event for event in waiting if event.session not in held]
        doubtful = {event.session for event in free if event.id in self._suspects}
        fresh = [event for event in free if event.session not in doubtful]
        if not fresh:
            return free[:1]
        if self._size > 1 or not self._skip:
            return fresh[: self._size]
        sessions = list(dict.fromkeys(event.session for event in fresh))
        session = sessions[self._skip % len(sessions)]
        return [next(event for event in fresh if event.session == session)]

    def took(self, batch: Sequence[OutboxEvent]) -> None:
        """
        All of *batch* was taken.
        """
        self._silences = self._skip = 0
        self._size = min(self.most, self._size * 2)
        for event in batch:
            self._suspects.pop(event.id, None)

    def failed(self, batch: Sequence[OutboxEvent], *, answers: bool) -> bool:
        """
        A batch of several was not taken; True if less is told now.

        Args:
            answers: Whoever is told is there: something in the batch is to blame.
        """
        if answers:
            self._size = max(1, len(batch) // 2)
            return True
        self._silences += 1
        if self._silences >= PATIENCE:
            self._size = 1
        return False

    def unlucky(self) -> None:
        """
        Nothing was taken of single events: the next time others are tried.
        """
        self._skip += 1

    def failed_alone(self, event: OutboxEvent) -> bool:
        """
        An event was not taken by itself, while others were; True if it is given up.
        """
        failures = self._suspects.pop(event.id, 0) + 1
        if failures >= self._attempts:
            return True
        self._suspects[event.id] = failures
        return False

    def forget(self, but: Collection[str]) -> None:
        """
        Remember nothing of events that wait here no more: all *but* those.
        """
        for id_ in [id_ for id_ in self._suspects if id_ not in but]:
            del self._suspects[id_]

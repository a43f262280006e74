"""
What was revoked before its time, as far as this instance was told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gateway.core.identity import Identity, Revocation

__all__ = ["MemoryRevocations"]

_SWEEP_LEAST = 1024


class MemoryRevocations:
    """
    The ``ports.identity.Revocations`` of a process.

    An entry is never given up before its time, however many there are: that would let somebody
    back in. Those past it are swept out whenever their number has doubled.

    Args:
        wall: Seconds since the epoch.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._tokens: dict[str, float] = {}
        self._subjects: dict[str, tuple[float, float]] = {}
        self._sweep_at = _SWEEP_LEAST
        self._watchers: list[Callable[[Revocation], None]] = []

    @property
    def held(self) -> int:
        """How many revocations are kept."""
        return len(self._tokens) + len(self._subjects)

    def __iter__(self) -> Iterator[Revocation]:
        for token_id, until in list(self._tokens.items()):
            yield Revocation(until, token_id=token_id)
        for subject, (before, until) in list(self._subjects.items()):
            yield Revocation(until, subject=subject, issued_before=before)

    def add(self, revocation: Revocation) -> None:
        """
        Revoke one token or session, or what a subject was issued before a time and what does not say when.
        """
        until = revocation.until
        if revocation.token_id:
            token_id = revocation.token_id
            self._tokens[token_id] = max(until, self._tokens.get(token_id, until))
        else:
            before, kept = self._subjects.get(revocation.subject, (revocation.issued_before, until))
            self._subjects[revocation.subject] = (max(before, revocation.issued_before), max(kept, until))
        self._sweep()
        for told in self._watchers:
            told(revocation)

    async def revoke(self, revocation: Revocation) -> bool:
        """
        The same: there is no other instance.
        """
        self.add(revocation)
        return True

    def watch(self, told: Callable[[Revocation], None]) -> None:
        """
        Tell *told* what is added.
        """
        self._watchers.append(told)

    def is_revoked(self, identity: Identity) -> bool:
        """
        Whether *identity*, its session, or all that its subject had was revoked.
        """
        tokens = self._tokens
        if tokens:
            until = max(tokens.get(identity.token_id or "", 0.0), tokens.get(identity.session_id or "", 0.0))
            if until and self._wall() < until:
                return True
        subjects = self._subjects
        if subjects:
            entry = subjects.get(identity.subject)
            if entry is not None:
                before, until = entry
                issued_at = identity.issued_at
                return (issued_at is None or issued_at < before) and self._wall() < until
        return False

    def _sweep(self) -> None:
        if self.held < self._sweep_at:
            return
        now = self._wall()
        for token_id in [token_id for token_id, until in self._tokens.items() if until <= now]:
            del self._tokens[token_id]
        for subject in [subject for subject, (_, until) in self._subjects.items() if until <= now]:
            del self._subjects[subject]
        self._sweep_at = max(_SWEEP_LEAST, 2 * self.held)

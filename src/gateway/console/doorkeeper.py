"""
Who may come in: users, their keys and passwords, and how often somebody may try.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.threads import deferToThreadPool

from gateway.config.console_section import Console
from gateway.config.console_users import ConsoleUser, public_key
from gateway.console.desk import Caller, Desk
from gateway.console.lockout import Lockout
from gateway.core.passwords import hashed, matches

__all__ = ["Doorkeeper"]

MOST_LOOKING: Final = 4
"""Passwords that are looked at in threads at the same time; each takes 32 MiB."""

MOST_PASSWORD: Final = 256

MOST_INSIDE: Final = 20
"""People who are in at the same time; as many again may be at the door."""


class Doorkeeper:
    """
    The door, however one comes.

    Args:
        reactor: Its threads compute the hashes.
    """

    def __init__(self, reactor: Any, desk: Desk, section: Console, users: Sequence[ConsoleUser]) -> None:
        self._reactor = reactor
        self._desk = desk
        self._looking = 0
        self.lockout = Lockout(section.lockout.tries, section.lockout.for_s, reactor.seconds)
        self.inside = 0
        self._nobody: str | None = None
        self.configure(section, users)

    def configure(self, section: Console, users: Sequence[ConsoleUser]) -> None:
        """
        Take other users; whoever is inside stays.
        """
        self.lockout.tries, self.lockout.for_s = section.lockout.tries, section.lockout.for_s
        self._users = {user.name: user for user in users}
        self._keys = {user.name: frozenset(public_key(key) for key in user.keys) for user in users}

    def caller(self, name: str, over: str, peer: str, *, with_key: bool) -> Caller:
        """
        Who *name* is, once it has proved so.
        """
        return Caller(name, self._users[name].role, over, peer, with_key)

    def locked(self, name: str, over: str, peer: str, method: str) -> bool:
        """
        Whether nobody is heard from there under this name; told to the log.
        """
        if not self.lockout.locked(peer, name):
            return False
        self._desk.came(name, over, peer, "locked", method)
        return True

    def knows(self, name: str, blob: bytes) -> bool:
        """
        Whether a public key is one of *name*'s.
        """
        return blob in self._keys.get(name, ())

    async def password(self, name: str, password: str, over: str, peer: str) -> bool:
        """
        Whether *password* is *name*'s; told to the log, and counted if it is not.
        """
        if self.locked(name, over, peer, "password"):
            return False
        if self._looking >= MOST_LOOKING or self.full:
            self._desk.came(name, over, peer, "busy", "password")
            return False
        self._looking += 1
        try:
            right = await self._matches(name, password)
        finally:
            self._looking -= 1
        # Several may have been under way at once.
        if self.locked(name, over, peer, "password"):
            return False
        if not right:
            self.failed(name, over, peer, "password")
        return right

    async def _matches(self, name: str, password: str) -> bool:
        user = self._users.get(name)
        kept = user.password.reveal() if user is not None and user.password is not None else None
        pool = self._reactor.getThreadPool()
        if self._nobody is None:
            self._nobody = await deferToThreadPool(self._reactor, pool, hashed, "", bytes(16))
        # A name that is not there takes as long as one that is.
        right = await deferToThreadPool(
            self._reactor, pool, matches, password[:MOST_PASSWORD], kept if kept is not None else self._nobody
        )
        return bool(right) and kept is not None and len(password) <= MOST_PASSWORD

    def failed(self, name: str, over: str, peer: str, method: str) -> None:
        """
        Hold a failed try against *peer*.
        """
        self.lockout.failed(peer, name)
        self._desk.came(name, over, peer, "refused", method)

    @property
    def full(self) -> bool:
        """Whether nobody more is let in now."""
        return self.inside >= MOST_INSIDE

    def came(self, caller: Caller, method: str) -> None:
        """
        Somebody is in.
        """
        self.inside += 1
        self.lockout.succeeded(caller.peer, caller.name)
        self._desk.came(caller.name, caller.over, caller.peer, "in", method)

    def went(self, caller: Caller, lasted_s: float) -> None:
        """
        Somebody has left.
        """
        self.inside -= 1
        self._desk.went(caller, lasted_s)

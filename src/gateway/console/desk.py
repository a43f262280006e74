"""
Where every command arrives, however it came: who may do it is decided here, and each is written down.

One line in the log and one count for each attempt, whatever becomes of it: ``ok``, ``unknown``, ``usage``, ``denied``,
``failed``, ``cancelled``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from gateway.config.walk import suggest
from gateway.console.told import Refusal, Told
from gateway.console.verb import Asked, Face, Verb, may, split
from gateway.console.verbs import VERBS
from gateway.core.verdicts import ClientError
from gateway.node import support_acts as a
from gateway.ports.realtime import StoreUnavailable
from gateway.telemetry.metrics import Metrics

__all__ = ["Caller", "Desk"]

PAGE_S: Final = 0.02
"""From one page of a list to the next, of all lists together."""

MOST_TOLD: Final = 300
"""Signs of a command that are written down."""


@dataclass(frozen=True, slots=True)
class Caller:
    """
    Whoever gives commands.

    Attributes:
        name: A user of the console, or a key of the admin port.
        role: What it may do; any other word: nothing.
        over: ``ssh``, ``telnet`` or ``ctl``.
        peer: The address.
        with_key: It proved itself with a key of ssh.
    """

    name: str
    role: str
    over: str
    peer: str
    with_key: bool = False


class Desk:
    """
    All verbs of one process.

    Args:
        log: A structlog logger.
    """

    def __init__(self, face: Face, log: Any, metrics: Metrics, clock: Any) -> None:
        self._face = face
        self._log = log
        self._metrics = metrics
        self._clock = clock
        self._seconds = clock.seconds
        self._free_at = 0.0

    async def line(self, caller: Caller, line: str) -> Told:
        """
        Do what *line* says.

        Raises:
            Refusal: it was not done.
        """
        try:
            words = split(line)
        except Refusal as refusal:
            self._audit(caller, "", line, refusal.outcome, 0.0)
            raise
        return await self.do(caller, words)

    async def do(self, caller: Caller, words: Sequence[str], after: str = "") -> Told:
        """
        Do what *words* say: a verb and its arguments.

        Args:
            after: The ``next`` of an answer before.

        Raises:
            Refusal: it was not done.
        """
        began, outcome = self._seconds(), "failed"
        name = words[0] if words else ""
        verb = VERBS.get(name)
        try:
            told = await self._done(caller, verb, words, after)
            outcome = "ok"
            return told
        except Refusal as refusal:
            outcome = refusal.outcome
            raise
        except CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self._audit(caller, name if verb is not None else "", " ".join(words), outcome, self._seconds() - began)

    async def again(self, caller: Caller, words: Sequence[str], after: str) -> Told:
        """
        Go on with a command that was given: another page of it, or what happened since. It is written down once.

        Raises:
            Refusal: it cannot go on.
        """
        return await self._done(caller, VERBS.get(words[0]), words, after)

    async def _done(self, caller: Caller, verb: Verb | None, words: Sequence[str], after: str) -> Told:
        if verb is None:
            name = words[0][:40] if words else ""
            raise Refusal("unknown", f"there is no {name!r}{suggest(name, self.known(caller))}")
        if not may(caller.role, verb.role):
            raise Refusal("denied", f"{verb.name} is for the role {verb.role}; yours is {caller.role or 'none'}")
        asked = Asked({**verb.read(words[1:]), "caller": caller}, after)
        try:
            if after:
                await self._pause()
            return await verb.does(self._face, asked)
        except ClientError as error:
            raise Refusal("failed", error.text) from error
        except StoreUnavailable as error:
            raise Refusal("failed", f"a store cannot be asked now: {error}") from error
        except (CancelledError, Refusal):
            raise
        except Exception as error:  # Whatever fails behind a verb, its asker gets an answer and the log the traceback.
            self._log.error("console.failed", verb=verb.name, exception=Failure().getTraceback())
            raise Refusal("failed", "the gateway failed; its log says how") from error

    async def _pause(self) -> None:
        """Let all who list share a small part of the reactor's time, however many they are and however fast they read."""
        now = self._seconds()
        self._free_at = max(now, self._free_at) + PAGE_S
        if self._free_at > now:
            await deferLater(self._clock, self._free_at - now)

    def _audit(self, caller: Caller, verb: str, line: str, outcome: str, lasted_s: float) -> None:
        self._metrics.console_commands.inc(verb or "none", outcome)
        self._log.info(
            "console.command",
            operator=caller.name,
            role=caller.role,
            over=caller.over,
            peer=caller.peer,
            command=line[:MOST_TOLD],
            outcome=outcome,
            lasted_ms=round(lasted_s * 1000, 1),
        )

    def misread(self, caller: Caller) -> None:
        """
        Write down an order that could not even be read.
        """
        self._audit(caller, "", "", "usage", 0.0)

    def came(self, name: str, over: str, peer: str, outcome: str, method: str) -> None:
        """
        Write down that somebody came in, or did not: ``in``, ``refused``, ``locked``, ``busy``.
        """
        self._metrics.console_logins.inc(over, outcome)
        log = self._log
        told = {"operator": name[:64], "over": over, "peer": peer, "method": method}
        if outcome == "in":
            log.info("console.login", **told, outcome=outcome)
        else:
            log.warning("console.login", **told, outcome=outcome)

    def went(self, caller: Caller, lasted_s: float) -> None:
        """
        Write down that somebody left.
        """
        told = {"operator": caller.name, "over": caller.over, "peer": caller.peer}
        self._log.info("console.logout", **told, lasted_s=round(lasted_s, 1))

    def ordered(self, caller: Caller, line: str, outcome: str) -> None:
        """
        Write down a line of Python, or the wish for it.
        """
        self._audit(caller, "python", line, outcome, 0.0)

    def broke(self, failure: Failure) -> None:
        """
        Report a fault of ours.
        """
        self._log.error("console.failed", verb="", exception=failure.getTraceback())

    def known(self, caller: Caller) -> Mapping[str, Verb]:
        """
        List the verbs that *caller* may use.
        """
        return {name: verb for name, verb in VERBS.items() if may(caller.role, verb.role)}

    async def complete(self, caller: Caller, line: str) -> list[str]:
        """
        List what the last word of *line* may become; nothing where that cannot be told.
        """
        words = line.split()
        if not words or (len(words) == 1 and not line.endswith(" ")):
            return sorted(name for name in self.known(caller) if name.startswith(words[0] if words else ""))
        verb = self.known(caller).get(words[0])
        last = "" if line.endswith(" ") else words[-1]
        place = len(words) - (2 if last else 1)
        if verb is None or place >= len(verb.params):
            return []
        param = verb.params[place]
        if verb.name == "help":
            return sorted(name for name in self.known(caller) if name.startswith(last))
        if param.choices:
            return [each for each in param.choices if each.startswith(last)]
        if not param.names:
            return []
        try:
            told = await self._face.node.cluster.do(a.Names(kind=param.names, prefix=last))
        except (ClientError, StoreUnavailable):
            return []
        return sorted({name for names in told.values.values() for name in names})

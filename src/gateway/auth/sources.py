"""
Where the keys of one issuer come from, and how those behind a URL are kept fresh.

They are fetched at start and again, in the background, at 80 % of their age; an unknown key id
brings one more fetch in 30 s. A set that is empty or cannot be read never replaces one that was
good. During an outage the last good set serves until it is too old; then there are no keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from gateway.auth.keyset import KeySet, from_jwks
from gateway.config.sections import Issuer
from gateway.core.backoff import backoff
from gateway.core.message import Header
from gateway.core.problems import Problem

__all__ = ["Fetch", "KeySource", "RemoteSource", "Report", "Surroundings", "freshness"]

MIN_TTL_S: Final = 60.0
UNKNOWN_KID_S: Final = 30.0
FETCH_TIMEOUT_S: Final = 5.0
MAX_DOCUMENT_BYTES: Final = 256 * 1024

_REFRESH_AT = 0.8
_BACKOFF_BASE_S = 2.0
_BACKOFF_MAX_S = 60.0
_BACKOFF_LEAST_S = 0.5

Fetch = Callable[[str, Path | None, float, int], "Deferred[tuple[int, Sequence[Header], bytes]]"]
"""
GET a URL: (url, file of authorities or None, seconds for everything, most bytes of the body) to
(status, header lines, body). Follows no redirect, verifies TLS, fails with any exception.
"""


class Report(Protocol):
    """
    Told what becomes of keys, for log and metrics.
    """

    def __call__(self, event: str, *, issuer: str, detail: str) -> None:
        """Take ``keys.fetched``, ``keys.failed`` or ``keys.expired``; *detail* says how many, or why."""


class Surroundings:
    """
    What a source of keys works with.

    Attributes:
        fetch: Gets documents.
        clock: Monotonic; drives refreshing.
        report: Told of every fetch.
        random: Evenly from 0 to 1; spreads attempts while an issuer is out of order.
        changed: Told the name of an issuer when keys that verified its tokens are no longer there.
    """

    __slots__ = ("changed", "clock", "fetch", "random", "report")

    def __init__(
        self,
        fetch: Fetch,
        clock: IReactorTime,
        report: Report,
        random: Callable[[], float],
    ) -> None:
        self.fetch = fetch
        self.clock = clock
        self.report = report
        self.random = random
        self.changed: Callable[[str], None] = _nobody


class KeySource:
    """
    The keys of one issuer, which are here and do not age.

    Attributes:
        issuer: Its section.
        keys: What verifies its tokens now; None when there never was any, or it is too old.
    """

    __slots__ = ("issuer", "keys")

    def __init__(self, issuer: Issuer, keys: KeySet | None) -> None:
        self.issuer = issuer
        self.keys = keys

    def fresher(self) -> Deferred[None] | None:
        """
        Look for keys that are not here yet.

        Returns:
            A Deferred that fires (it never fails) when it was looked, or None when waiting is of no use.
        """
        return None

    def unavailable(self) -> Problem:
        """
        Make the 503 for the time without keys.
        """
        return Problem("keys_unavailable", headers=((b"Retry-After", b"%d" % self.retry_after_s()),))

    def retry_after_s(self) -> int:
        """Whole seconds, at least 1, until keys may be there."""
        return 1

    def age_s(self) -> float:
        """Seconds since the keys were confirmed; 0 for those that do not age, infinite without any."""
        return 0.0


class RemoteSource(KeySource):
    """
    Keys behind a URL.
    """

    __slots__ = (
        "_asked_at",
        "_failures",
        "_fetched_at",
        "_flight",
        "_in",
        "_stopped",
        "_timer",
        "_url",
        "_waiting",
    )

    def __init__(self, issuer: Issuer, url: str, surroundings: Surroundings) -> None:
        super().__init__(issuer, None)
        self._url = url
        self._in = surroundings
        self._asked_at = float("-inf")
        self._fetched_at = float("-inf")
        self._failures = 0
        self._flight: Deferred[None] | None = None
        self._waiting: list[Deferred[None]] = []
        self._timer: IDelayedCall | None = None
        self._stopped = False

    def serves(self, issuer: Issuer) -> bool:
        """
        Whether *issuer* has its keys from here and would take the same of them.
        """
        mine = self.issuer
        return (issuer.jwks_url, issuer.jwks_ca_file, issuer.algorithms) == (
            mine.jwks_url,
            mine.jwks_ca_file,
            mine.algorithms,
        )

    def fresher(self) -> Deferred[None] | None:
        """
        Join the fetch under way; without one begin one, unless the last was less than 30 s ago.
        """
        if self._stopped:
            return None
        if self._flight is None:
            # Without keys the timer tries again by itself, and sooner; requests do not add to that.
            if self.keys is None and self._timer is not None:
                return None
            now = self._in.clock.seconds()
            if now - self._asked_at < UNKNOWN_KID_S:
                return None
            self._asked_at = now
            self.refresh()
        # Its own Deferred: a caller that leaves must not end the fetch for the others.
        waiting: Deferred[None] = Deferred(self._forget)
        if self._flight is None:
            waiting.callback(None)
        else:
            self._waiting.append(waiting)
        return waiting

    def retry_after_s(self) -> int:
        """Until the next attempt."""
        if self._timer is None:
            return 1
        return max(1, ceil(self._timer.getTime() - self._in.clock.seconds()))

    def age_s(self) -> float:
        """Since the last good fetch."""
        return self._in.clock.seconds() - self._fetched_at

    def refresh(self) -> None:
        """
        Fetch now, unless that is under way.
        """
        if self._flight is not None or self._stopped:
            return
        self._disarm()
        surroundings = self._in
        try:
            fetched = surroundings.fetch(self._url, self.issuer.jwks_ca_file, FETCH_TIMEOUT_S, MAX_DOCUMENT_BYTES)
        except Exception:  # A fetch that cannot even begin is an outage like any other.
            self._failed(Failure())
            return
        flight: Deferred[None] = fetched.addCallback(self._arrived)
        self._flight = flight
        flight.addErrback(self._failed)
        flight.addBoth(self._landed)

    def stop(self) -> None:
        """
        End for good.
        """
        self._stopped = True
        self._disarm()
        if self._flight is not None:
            self._flight.cancel()
        self._release()

    def _arrived(self, fetched: tuple[int, Sequence[Header], bytes]) -> None:
        if self._stopped:
            return
        status, headers, body = fetched
        if status != 200:
            raise ValueError(f"status {status}")
        if len(body) > MAX_DOCUMENT_BYTES:
            raise ValueError("the document is too large")
        keys = from_jwks(body, self.issuer.algorithms)
        before, self.keys = self.keys, keys
        surroundings = self._in
        self._failures = 0
        self._fetched_at = surroundings.clock.seconds()
        self._arm(_REFRESH_AT * freshness(headers, self.issuer.jwks_ttl_s))
        if before is not None and not keys.holds(before):
            surroundings.changed(self.issuer.issuer)
        surroundings.report("keys.fetched", issuer=self.issuer.issuer, detail=f"{len(keys.keys)} keys")

    def _failed(self, failure: Failure) -> None:
        if self._stopped:
            return
        surroundings = self._in
        self._failures += 1
        wait = backoff(self._failures, _BACKOFF_BASE_S, _BACKOFF_MAX_S, surroundings.random)
        if self.keys is not None:
            left = self.issuer.jwks_max_stale_s - self.age_s()
            wait = min(wait, left)  # So that they are given up in time.
        self._arm(max(_BACKOFF_LEAST_S, wait))
        detail = f"{type(failure.value).__name__}: {failure.getErrorMessage()}"[:200]
        surroundings.report("keys.failed", issuer=self.issuer.issuer, detail=detail)
        if self.keys is not None and left <= 0:
            self.keys = None
            surroundings.changed(self.issuer.issuer)
            surroundings.report("keys.expired", issuer=self.issuer.issuer, detail="older than jwks_max_stale")

    def _landed(self, _: None) -> None:
        self._flight = None
        self._release()

    def _release(self) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(None)

    def _forget(self, waiting: Deferred[None]) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)

    def _arm(self, delay_s: float) -> None:
        self._disarm()
        self._timer = self._in.clock.callLater(delay_s, self._due)

    def _disarm(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _due(self) -> None:
        self._timer = None
        self.refresh()


def freshness(headers: Sequence[Header], most_s: float) -> float:
    """
    Seconds for which a set is fresh: as the issuer says (RFC 9111, section 5.2.2), from 60 to *most_s*.
    """
    said: float | None = None
    for name, value in headers:
        if name.lower() != b"cache-control":
            continue
        for directive in value.lower().split(b","):
            key, _, number = directive.strip().partition(b"=")
            if key in (b"no-store", b"no-cache"):
                return min(MIN_TTL_S, most_s)
            number = number.strip(b'"')
            if key == b"max-age" and number.isdigit():
                said = float(number[:12])
    return most_s if said is None else min(max(said, MIN_TTL_S), most_s)


def _nobody(issuer: str) -> None:
    """Nobody wants to know."""

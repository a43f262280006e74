"""
Where each issuer's keys come from, and how they are kept fresh.

A secret, a PEM file and a JWK Set file are read once. A JWK Set behind a URL is fetched at
start and again, in the background, at 80 % of its age; an unknown key id brings one more fetch
in 30 s. A set that is empty or cannot be read never replaces one that was good. During an
outage the last good set serves until it is too old.
"""

from __future__ import annotations

import random as chance
from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from gateway.auth.keyset import KeySet, from_jwks, from_pem, from_secret
from gateway.config.sections import Auth, Issuer
from gateway.core.backoff import backoff
from gateway.core.message import Header
from gateway.core.problems import Problem

__all__ = ["Fetch", "KeyFault", "KeyRing", "KeySource", "Report", "unavailable"]

MIN_TTL_S = 60.0
UNKNOWN_KID_S = 30.0
FETCH_TIMEOUT_S = 5.0
MAX_DOCUMENT_BYTES = 256 * 1024

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
        """Take ``keys.fetched``, ``keys.failed`` (*detail* says why) or ``keys.expired``."""


class KeyFault(ValueError):
    """
    Configured key material cannot be used; the text names the issuer, the setting and why.
    """


class KeySource:
    """
    The keys of one issuer.

    Attributes:
        issuer: Its section.
        keys: What verifies its tokens now; None when there never was any, or it is too old.
        changed: Called when keys that verified tokens are no longer there.
    """

    __slots__ = ("changed", "issuer", "keys")

    def __init__(self, issuer: Issuer, keys: KeySet | None) -> None:
        self.issuer = issuer
        self.keys = keys
        self.changed: Callable[[Issuer], None] = _nobody

    def fresher(self) -> Deferred[None] | None:
        """
        Look for keys that are not here yet.

        Returns:
            A Deferred that fires (never fails) when it was looked, or None when there is no use in waiting.
        """
        return None

    def retry_after_s(self) -> int:
        """Whole seconds, at least 1, until keys may be there."""
        return 1

    def age_s(self) -> float:
        """Seconds since the keys were confirmed; 0 for those that do not age, infinite without any."""
        return 0.0


class KeyRing:
    """
    The keys of every issuer.

    Args:
        fetch: Gets documents.
        clock: Drives refreshing.
        report: Told of every fetch.
        random: Evenly from 0 to 1; spreads attempts while an issuer is out of order.

    Raises:
        KeyFault: a configured file or secret cannot be used.
    """

    def __init__(
        self,
        section: Auth,
        fetch: Fetch,
        clock: IReactorTime,
        report: Report,
        random: Callable[[], float] = chance.random,
    ) -> None:
        self._remote: list[_RemoteSource] = []
        self.sources: dict[str, KeySource] = {}
        for issuer in section.issuer:
            if issuer.jwks_url is not None:
                remote = _RemoteSource(issuer, issuer.jwks_url, fetch, clock, report, random)
                self._remote.append(remote)
                self.sources[issuer.issuer] = remote
            else:
                self.sources[issuer.issuer] = KeySource(issuer, _local(issuer))

    def start(self) -> None:
        """
        Begin fetching, and keep refreshing until stopped.
        """
        for source in self._remote:
            source.refresh()

    async def stop(self) -> None:
        """
        End every fetch and timer; whoever waits for keys is told that there are none.
        """
        for source in self._remote:
            source.stop()

    def ready(self) -> bool:
        """Whether every issuer has keys."""
        return all(source.keys is not None for source in self.sources.values())

    def ages(self) -> list[tuple[str, float]]:
        """List each issuer and the seconds since its keys were confirmed; infinite without keys."""
        return [(name, source.age_s()) for name, source in self.sources.items()]


class _RemoteSource(KeySource):
    """
    Keys behind a URL.
    """

    __slots__ = (
        "_asked_at",
        "_clock",
        "_failures",
        "_fetch",
        "_fetched_at",
        "_flight",
        "_random",
        "_report",
        "_stopped",
        "_timer",
        "_url",
        "_waiting",
    )

    def __init__(
        self,
        issuer: Issuer,
        url: str,
        fetch: Fetch,
        clock: IReactorTime,
        report: Report,
        random: Callable[[], float],
    ) -> None:
        super().__init__(issuer, None)
        self._url = url
        self._fetch = fetch
        self._clock = clock
        self._report = report
        self._random = random
        self._asked_at = float("-inf")
        self._fetched_at = float("-inf")
        self._failures = 0
        self._flight: Deferred[None] | None = None
        self._waiting: list[Deferred[None]] = []
        self._timer: IDelayedCall | None = None
        self._stopped = False

    def fresher(self) -> Deferred[None] | None:
        """
        Join the fetch under way; without one begin one, unless the last was less than 30 s ago.
        """
        if self._stopped:
            return None
        if self._flight is None:
            # Without keys the timer tries again by itself, and faster; requests do not add to that.
            if self.keys is None and self._timer is not None:
                return None
            now = self._clock.seconds()
            if now - self._asked_at < UNKNOWN_KID_S:
                return None
            self._asked_at = now
            self.refresh()
            if self._flight is None:  # It ended at once.
                done: Deferred[None] = Deferred()
                done.callback(None)
                return done
        waiting: Deferred[None] = Deferred(self._forget)  # Its own: a caller that leaves must not end the fetch.
        self._waiting.append(waiting)
        return waiting

    def retry_after_s(self) -> int:
        """Until the next attempt."""
        if self._timer is None:
            return 1
        return max(1, ceil(self._timer.getTime() - self._clock.seconds()))

    def age_s(self) -> float:
        """Since the last good fetch."""
        return self._clock.seconds() - self._fetched_at

    def refresh(self) -> None:
        """
        Fetch now, unless that is under way.
        """
        if self._flight is not None or self._stopped:
            return
        self._disarm()
        try:
            fetched = self._fetch(self._url, self.issuer.jwks_ca_file, FETCH_TIMEOUT_S, MAX_DOCUMENT_BYTES)
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
        status, headers, body = fetched
        if status != 200:
            raise ValueError(f"status {status}")
        if len(body) > MAX_DOCUMENT_BYTES:
            raise ValueError("the document is too large")
        keys = from_jwks(body, self.issuer.algorithms)
        before, self.keys = self.keys, keys
        self._failures = 0
        self._fetched_at = self._clock.seconds()
        if before is not None and not keys.holds(before):
            self.changed(self.issuer)
        self._report("keys.fetched", issuer=self.issuer.issuer, detail=f"{len(keys.keys)} keys")
        self._arm(_REFRESH_AT * _ttl(headers, self.issuer.jwks_ttl_s))

    def _failed(self, failure: Failure) -> None:
        if self._stopped or failure.check(CancelledError):
            return
        self._failures += 1
        detail = f"{type(failure.value).__name__}: {failure.getErrorMessage()}"[:200]
        self._report("keys.failed", issuer=self.issuer.issuer, detail=detail)
        left = self.issuer.jwks_max_stale_s - self.age_s()
        if self.keys is not None and left <= 0:
            self.keys = None
            self._report("keys.expired", issuer=self.issuer.issuer, detail="")
            self.changed(self.issuer)
        wait = backoff(self._failures, _BACKOFF_BASE_S, _BACKOFF_MAX_S, self._random)
        if self.keys is not None:
            wait = min(wait, left)  # So that they are given up in time.
        self._arm(max(_BACKOFF_LEAST_S, wait))

    def _landed(self, _: None) -> None:
        self._flight = None
        if not self._stopped and self._timer is None:
            self._arm(_BACKOFF_LEAST_S)
        self._release()

    def _release(self) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(None)

    def _forget(self, waiting: Deferred[None]) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)

    def _arm(self, delay_s: float) -> None:
        if not self._stopped:
            self._disarm()
            self._timer = self._clock.callLater(delay_s, self._due)

    def _disarm(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _due(self) -> None:
        self._timer = None
        self.refresh()


def unavailable(source: KeySource) -> Problem:
    """
    Make the 503 for an issuer without keys.
    """
    return Problem("keys_unavailable", headers=((b"Retry-After", b"%d" % source.retry_after_s()),))


def _nobody(issuer: Issuer) -> None:
    """Nobody wants to know."""


def _local(issuer: Issuer) -> KeySet:
    setting = "secret"
    try:
        if issuer.secret is not None:
            return from_secret(issuer.secret.reveal(), issuer.algorithms)
        if issuer.public_key_file is not None:
            setting = f"public_key_file {issuer.public_key_file}"
            return from_pem(issuer.public_key_file.read_bytes(), issuer.algorithms)
        if issuer.jwks_file is not None:
            setting = f"jwks_file {issuer.jwks_file}"
            return from_jwks(issuer.jwks_file.read_bytes(), issuer.algorithms)
    except OSError as exc:
        raise KeyFault(f"issuer {issuer.issuer!r}: {setting}: {exc.strerror or exc}") from exc
    except ValueError as exc:
        raise KeyFault(f"issuer {issuer.issuer!r}: {setting}: {exc}") from exc
    raise KeyFault(f"issuer {issuer.issuer!r}: has no key")


def _ttl(headers: Sequence[Header], most_s: float) -> float:
    """How long a set is fresh: as the issuer says (RFC 9111, section 5.2.2), from 60 s to *most_s*."""
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

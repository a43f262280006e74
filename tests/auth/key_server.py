"""
An issuer that publishes its keys over HTTP on loopback, and a fetch for them by treq.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tests.auth.making import HMAC_ISSUER, NOW, jwk, jwks, private_pem, token
from treq.client import HTTPClient
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.web.client import Agent
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from gateway.auth.keys import KeyRing
from gateway.auth.tokens import JwtAuthenticator
from gateway.config.sections import Auth, Issuer
from gateway.core.identity import Identity
from gateway.core.message import Header
from gateway.core.problems import Problem
from gateway.memory.revocations import MemoryRevocations

reactor: Any = installed


class KeyServer(Resource):
    """
    Publishes ``document``, as it is told to; counts who asks.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.document = jwks(jwk("P-256", "k1"))
        self.status = 200
        self.headers: dict[str, str] = {}
        self.asked = 0
        self.holding = False
        self._held: list[Any] = []
        self._port = reactor.listenTCP(0, Site(self), interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self._port.getHost().port}/jwks"

    def render_GET(self, request: Any) -> int:
        self.asked += 1
        self._held.append(request)
        if not self.holding:
            self.release()
        return NOT_DONE_YET

    def release(self) -> None:
        """Answer those who wait."""
        self.holding = False
        held, self._held = self._held, []
        for request in held:
            request.setResponseCode(self.status)
            for name, value in self.headers.items():
                request.setHeader(name, value)
            request.write(self.document)
            request.finish()

    async def close(self) -> None:
        """Answer who waits, and listen no more. May be called again."""
        self.release()
        await maybeDeferred(self._port.stopListening)


def fetch(
    url: str, ca_file: Path | None, timeout_s: float, max_bytes: int
) -> Deferred[tuple[int, Sequence[Header], bytes]]:
    """By treq, without redirects."""

    async def read() -> tuple[int, Sequence[Header], bytes]:
        response = await HTTPClient(Agent(reactor)).get(url, allow_redirects=False)
        headers = [(name, value) for name, values in response.headers.getAllRawHeaders() for value in values]
        return response.code, headers, await response.content()

    return Deferred.fromCoroutine(read()).addTimeout(timeout_s, reactor)


class Issuing:
    """
    A server, the ring that has its keys from there, and a clock to move the ring's time.
    """

    def __init__(self, **more: Any) -> None:
        self.server = KeyServer()
        self.clock = Clock()
        self.issuer = Issuer(HMAC_ISSUER, ("gateway",), ("ES256", "RS256"), jwks_url=self.server.url, **more)
        self.section = Auth(issuer=(self.issuer,))
        self.events: list[tuple[str, str]] = []
        self._next: list[Deferred[None]] = []
        self.ring = KeyRing(self.section, fetch, self.clock, self._report, random=lambda: 1.0)
        self.judge = JwtAuthenticator(self.section, self.ring, MemoryRevocations(lambda: NOW))

    def _report(self, event: str, *, issuer: str, detail: str) -> None:
        assert issuer == HMAC_ISSUER
        self.events.append((event, detail))
        waiting, self._next = self._next, []
        for one in waiting:
            # From here the ring is still at work; who waits goes on after it.
            reactor.callLater(0, one.callback, None)

    def happened(self) -> "Deferred[None]":
        """Fires after the next report."""
        waiting: Deferred[None] = Deferred()
        self._next.append(waiting)
        return waiting.addTimeout(10, reactor)

    async def started(self) -> "Issuing":
        happened = self.happened()
        self.ring.start()
        await happened
        return self

    async def after(self, seconds: float) -> None:
        """Let time pass, in which one fetch becomes due, and wait for its end."""
        happened = self.happened()
        self.clock.advance(seconds)
        await happened

    async def judged(self, presented: bytes) -> str:
        """The subject, or the reason of the refusal."""
        try:
            found = self.judge.authenticate(presented, NOW)
            identity: Identity = await found if isinstance(found, Deferred) else found
        except Problem as problem:
            return problem.reason
        return identity.subject

    async def close(self) -> None:
        await self.ring.stop()
        assert not self.clock.getDelayedCalls()
        await self.server.close()


@cache
def signed(kid: str = "k1", kind: str = "P-256", **claims: Any) -> bytes:
    return token({"kid": kid}, "RS256" if kind.startswith("rsa") else "ES256", private_pem(kind), **claims)

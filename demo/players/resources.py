"""
The backend's HTTP side, on ``twisted.web``.

::

    GET   /health
    GET   /                                   the page, and what belongs to it under /page/
    POST  /public/login                       a token for any name
    GET   /api/status                         how many players there are, for everybody
    GET   /api/players?limit=20&after=ID      a page, by id
    GET   /api/players/ID
    PUT   /api/players/ID                     all of name, country, motto; one's own only
    PATCH /api/players/ID                     some of them; one's own only
    GET   /api/players/export?bytes=N         N bytes of lines, made while they are sent
    GET   /api/players/slow?seconds=S         an answer that takes its time
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IPullProducer, IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from demo.players.login import LoginRefused, sign_in
from demo.players.page import add_page
from demo.players.store import EDITABLE, Profiles

__all__ = ["players_site"]

MAX_BODY = 64 * 1024
MAX_EXPORT = 16 * 1024**3
MAX_SLOW_S = 600.0
LINE = b'{"id":"player","played":1234,"won":617,"rating":1532,"note":"made up while it is sent"}\n'
CHUNK = LINE * (64 * 1024 // len(LINE))

Run = Callable[..., Any]
"""Calls a method of the profiles in their thread; returns a Deferred."""


class Refused(Exception):
    """
    An answer that is not the one asked for: a status and a sentence.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def players_site(reactor: Any, profiles: Profiles, threads: ThreadPool) -> Resource:
    """
    Build the tree of resources.

    Args:
        threads: One thread, which alone touches *profiles*.
    """

    def run(method: Callable[..., Any], *arguments: Any) -> Any:
        return deferToThreadPool(reactor, threads, method, *arguments)

    players = Players(profiles, run)
    players.putChild(b"", players)
    players.putChild(b"export", Export())
    players.putChild(b"slow", Slow(reactor))
    api = Resource()
    api.putChild(b"players", players)
    api.putChild(b"status", Status(profiles, run))
    root = Resource()
    root.putChild(b"health", Health())
    public = Resource()
    public.putChild(b"login", Login())
    root.putChild(b"public", public)
    add_page(root)
    root.putChild(b"api", api)
    return root


class Health(Resource):
    """Whether it lives."""

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        """Say so."""
        return _answer(request, {"status": "ok"})


class Login(Resource):
    """Who plays: any name, and a token for it."""

    isLeaf = True

    def render_POST(self, request: Request) -> bytes:
        """Answer the token."""
        content: Any = request.content
        try:
            return _answer(request, sign_in(content.read(MAX_BODY)))
        except LoginRefused as refused:
            return _refuse(request, Refused(400, str(refused)))


class Status(Resource):
    """How many players there are."""

    isLeaf = True

    def __init__(self, profiles: Profiles, run: Run) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Resource has no types
        self._profiles = profiles
        self._run = run

    def render_GET(self, request: Request) -> Any:
        """Answer the number."""
        return _later(request, self._run(self._profiles.count).addCallback(lambda count: {"players": count}))


class Players(Resource):
    """All of them; a child is one of them."""

    def __init__(self, profiles: Profiles, run: Run) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Resource has no types
        self._profiles = profiles
        self._run = run

    def getChild(self, path: bytes, request: Request) -> Resource:
        """Return the player whose id is *path*."""
        return Player(path.decode("utf-8", "replace"), self._profiles, self._run)

    def render_GET(self, request: Request) -> Any:
        """Answer a page."""
        try:
            limit = _number(request, b"limit", 20.0, 100.0)
        except Refused as refused:
            return _refuse(request, refused)
        limit = max(1, int(limit))
        after = _argument(request, b"after", "")

        def page(found: list[dict[str, Any]]) -> dict[str, Any]:
            more = found[:limit]
            return {"players": more, "next": more[-1]["id"] if len(found) > limit else None}

        return _later(request, self._run(self._profiles.page, after, limit + 1).addCallback(page))


class Player(Resource):
    """One of them."""

    isLeaf = True

    def __init__(self, player_id: str, profiles: Profiles, run: Run) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Resource has no types
        self._id = player_id
        self._profiles = profiles
        self._run = run

    def render_GET(self, request: Request) -> Any:
        """Answer the profile."""
        return _later(request, self._run(self._profiles.get, self._id).addCallback(self._found))

    def render_PUT(self, request: Request) -> Any:
        """Replace what can be edited."""
        return self._edit(request, whole=True)

    def render_PATCH(self, request: Request) -> Any:
        """Change some of it."""
        return self._edit(request, whole=False)

    def _edit(self, request: Request, *, whole: bool) -> Any:
        try:
            if request.getHeader("x-user-id") != self._id:
                raise Refused(403, "a profile is edited by its owner")
            fields = _fields(request)
            if whole and set(fields) != set(EDITABLE):
                raise Refused(422, f"PUT takes all of {', '.join(EDITABLE)}")
        except Refused as refused:
            return _refuse(request, refused)
        return _later(request, self._run(self._profiles.update, self._id, fields).addCallback(self._found))

    def _found(self, profile: dict[str, Any] | None) -> dict[str, Any]:
        if profile is None:
            raise Refused(404, f"there is no player {self._id}")
        return profile


class Export(Resource):
    """More than fits into anybody's memory, at the pace of whoever reads."""

    isLeaf = True

    def render_GET(self, request: Request) -> Any:
        """Stream the number of bytes asked for."""
        try:
            size = int(_number(request, b"bytes", 1024.0 * 1024, float(MAX_EXPORT)))
        except Refused as refused:
            return _refuse(request, refused)
        request.setHeader("Content-Type", "application/x-ndjson")
        request.setHeader("Content-Length", str(size))
        if request.method == b"HEAD":
            return b""
        request.registerProducer(_Lines(request, size), False)
        return NOT_DONE_YET


@implementer(IPullProducer)
class _Lines:
    """Writes one chunk each time the transport has room."""

    def __init__(self, request: Request, left: int) -> None:
        self._request = request
        self._left = left

    def resumeProducing(self) -> None:
        """Write the next chunk, and finish behind the last."""
        piece = CHUNK[: self._left]
        self._left -= len(piece)
        self._request.write(piece)
        if not self._left:
            self._request.unregisterProducer()
            self._request.finish()

    def stopProducing(self) -> None:
        """The client has gone."""
        self._left = 0


class Slow(Resource):
    """An answer that takes its time."""

    isLeaf = True

    def __init__(self, clock: IReactorTime) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Resource has no types
        self._clock = clock

    def render_GET(self, request: Request) -> Any:
        """Answer after the time asked for, unless the client goes first."""
        try:
            seconds = _number(request, b"seconds", 5.0, MAX_SLOW_S)
        except Refused as refused:
            return _refuse(request, refused)

        def finish() -> None:
            request.write(_answer(request, {"took_s": seconds}))
            request.finish()

        call = self._clock.callLater(seconds, finish)

        def gone(_: Failure) -> None:
            call.cancel()
            print(f"players: {request.uri.decode('latin-1')}: whoever asked has gone", flush=True)

        request.notifyFinish().addErrback(gone)
        return NOT_DONE_YET


def _argument(request: Request, name: bytes, default: str) -> str:
    values: list[bytes] = (request.args or {}).get(name, [])
    return values[0].decode("utf-8", "replace") if values else default


def _number(request: Request, name: bytes, default: float, most: float) -> float:
    text = _argument(request, name, "")
    try:
        number = float(text) if text else default
    except ValueError:
        number = -1.0
    if not 0 <= number <= most:
        raise Refused(400, f"{name.decode()} is a number up to {most:.0f}")
    return number


def _fields(request: Request) -> dict[str, str]:
    # twisted.web has the whole body here, whatever its size; the gateway in front has a limit.
    body = request.content.read(MAX_BODY + 1) if request.content else b""
    if len(body) > MAX_BODY:
        raise Refused(413, f"at most {MAX_BODY} bytes")
    try:
        fields = json.loads(body)
    except ValueError:
        raise Refused(400, "the body is not JSON") from None
    if not isinstance(fields, dict) or not fields or not set(fields) <= set(EDITABLE):
        raise Refused(422, f"an object with some of {', '.join(EDITABLE)}")
    if not all(isinstance(value, str) and len(value) <= 200 for value in fields.values()):
        raise Refused(422, "texts of at most 200 characters")
    return fields


def _later(request: Request, result: Any) -> Any:
    gone: list[bool] = []
    request.notifyFinish().addErrback(lambda _: gone.append(True))

    def answer(value: dict[str, Any]) -> None:
        if not gone:
            request.write(_answer(request, value))
            request.finish()

    def fail(failure: Failure) -> None:
        refused = failure.value if isinstance(failure.value, Refused) else Refused(500, "it failed")
        if not isinstance(failure.value, Refused):
            print(f"players: {failure.getErrorMessage()}", flush=True)
        if not gone:
            request.write(_refuse(request, refused))
            request.finish()

    result.addCallback(answer)
    result.addErrback(fail)
    return NOT_DONE_YET


def _answer(request: Request, value: dict[str, Any]) -> bytes:
    body = json.dumps(value, ensure_ascii=False).encode() + b"\n"
    request.setHeader("Content-Type", "application/json")
    request.setHeader("Content-Length", str(len(body)))
    return body


def _refuse(request: Request, refused: Refused) -> bytes:
    request.setResponseCode(refused.status)
    return _answer(request, {"error": str(refused)})

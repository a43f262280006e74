"""
All instances as one: what is to be done wherever a client may be is done here and by every other instance.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred

from gateway.core.problems import Problem
from gateway.core.verdicts import ClientError, ErrorCode
from gateway.node.acts import ACTS, Act, Acts, Subscribe
from gateway.node.together import together
from gateway.ports.cluster import ALL, MOST_BODY
from gateway.ports.realtime import StoreUnavailable
from gateway.ports.sessions import SessionRecord

if TYPE_CHECKING:
    from gateway.node.realtime import RealtimeNode

__all__ = ["Cluster", "Everywhere", "unavailable"]

ANSWER_S: Final = 2.0
"""How long an instance may take to answer."""

SUBSCRIBE_S: Final = 5.0
"""The same where it has to ask a backend for a snapshot."""

HOLDS_S: Final = 0.25
"""The same where a client waits to be let in."""

SAID_S: Final = 2.0
"""The same where it is given what one of its clients said."""

MOST_SAID: Final = 16 * 1024 * 1024
"""Bytes that clients said and other instances have not taken yet."""

MOST_NAME: Final = 64

_encode: Final = msgspec.msgpack.Encoder().encode


class _Outcome(Struct, array_like=True):
    """What an instance answers: a value, or code, text and whether to try again."""

    value: Any = None
    error: tuple[int, str, bool] | None = None


_said: Final = msgspec.msgpack.Decoder(tuple[str, bytes]).decode
_outcome: Final = msgspec.msgpack.Decoder(_Outcome).decode
_names: Final = msgspec.msgpack.Decoder(list[str]).decode


class Everywhere(NamedTuple):
    """
    What all instances told.

    Attributes:
        values: By instance, this one first.
        silent: Who did not answer in time.
    """

    values: dict[str, Any]
    silent: tuple[str, ...]


class Cluster:
    """
    One instance among the others.
    """

    def __init__(self, node: RealtimeNode) -> None:
        self._node = node
        self._bus = node.bus
        self._acts = Acts(node)
        for name, kind in ACTS.items():
            self._bus.answer(name, self._answering(msgspec.msgpack.Decoder(kind).decode))
        self._bus.answer("holds", self._says_whom_it_holds)
        self._bus.answer("said", self._hears)
        self._handing_on = 0

    def _answering(self, read: Callable[[bytes], Act]) -> Callable[[str, bytes], Coroutine[Any, Any, bytes]]:
        async def answer(_sender: str, body: bytes) -> bytes:
            try:
                return _encode(_Outcome(await self._acts.do(read(body))))
            except ClientError as error:
                return _failed(error)
            except StoreUnavailable:
                return _failed(unavailable())

        return answer

    def also(self, kind: type[Act], do: Callable[[Any], Coroutine[Any, Any, Any]]) -> None:
        """
        Do acts of one more *kind* with *do*, for others too; before ``join``.
        """
        self._acts.also(kind, do)
        self._bus.answer(kind.__name__.lower(), self._answering(msgspec.msgpack.Decoder(kind).decode))

    async def of(self, instance: str, act: Act) -> Any:
        """
        Do *act* on one *instance*.

        Raises:
            ClientError: it could not be done there, or nobody of that name answers.
            StoreUnavailable: it could not be done here.
        """
        if instance == self._node.instance:
            return await self._acts.do(act)
        name = type(act).__name__.lower()
        told = await self._bus.ask(instance, name, _encode(act), ANSWER_S)
        answer = told.answers.get(instance)
        if answer is None:
            self._node.metrics.silent.inc(name)
            raise ClientError(ErrorCode.NOT_AVAILABLE, f"{instance} does not answer", temporary=True)
        try:
            outcome = _outcome(answer)
        except msgspec.DecodeError:
            raise ClientError(ErrorCode.NOT_AVAILABLE, f"{instance} is of another release") from None
        if outcome.error is not None:
            code, text, temporary = outcome.error
            raise ClientError(code, text, temporary=temporary)
        return outcome.value

    async def do(self, act: Act) -> Everywhere:
        """
        Do *act* here and on every other instance at the same time; never hangs.

        Raises:
            ClientError, StoreUnavailable: it could not be done on some instance; the others have done it.
        """
        name, body = type(act).__name__.lower(), _encode(act)
        if len(body) > MOST_BODY:
            raise ClientError(ErrorCode.LIMIT_EXCEEDED, f"at most {MOST_BODY} bytes")
        within_s = SUBSCRIBE_S if isinstance(act, Subscribe) else ANSWER_S
        asked = Deferred.fromCoroutine(self._bus.ask(ALL, name, body, within_s))
        errors: list[Exception] = []
        values: dict[str, Any] = {}
        try:
            values[self._node.instance] = await self._acts.do(act)
        except (ClientError, StoreUnavailable) as error:
            errors.append(error)
        except BaseException:
            asked.addErrback(lambda failure: failure.trap(CancelledError))
            asked.cancel()
            raise
        told = await asked
        silent = list(told.silent)
        for instance, answer in sorted(told.answers.items()):
            try:
                outcome = _outcome(answer)
            except msgspec.DecodeError:
                silent.append(instance)  # Of a release that says it otherwise.
                continue
            if outcome.error is not None:
                code, text, temporary = outcome.error
                errors.append(ClientError(code, text, temporary=temporary))
            values[instance] = outcome.value
        if silent:
            self._node.metrics.silent.inc(name, by=len(silent))
        if errors:
            raise errors[0]
        return Everywhere(values, tuple(sorted(silent)))

    async def holds(self, records: Iterable[SessionRecord]) -> Collection[str]:
        """
        Ask the instances of sessions whether they still have their connections, each instance once.

        Returns:
            The clients that are there; of an instance that does not say so in time, none.
        """
        asked: dict[str, list[str]] = {}
        for record in records:
            asked.setdefault(record.instance, []).append(record.client)
        here = self._node.clients.keys() & asked.pop(self._node.instance, ())
        told = await together(
            self._bus.ask(instance, "holds", _encode(clients), HOLDS_S) for instance, clients in asked.items()
        )
        return here.union(*(_names(answer) for each in told for answer in each.answers.values()))

    async def _says_whom_it_holds(self, _sender: str, body: bytes) -> bytes:
        return _encode([client for client in _names(body) if client in self._node.clients])

    def said(self, instance: str, session: str, data: bytes) -> bool | Deferred[bool]:
        """
        Give what a client said to it, on the instance that has its connection; in order for each client.

        Returns:
            False, now or later, if that instance is not there. A session that it has not is no matter: the
            client hears of its end.

        Raises:
            Problem: too much waits for other instances, or it is more than can be handed on.
        """
        if instance == self._node.instance:
            self._give(session, data)
            return True
        if not 0 < len(instance) <= MOST_NAME:
            return False
        return Deferred.fromCoroutine(self._hand_on(instance, _encode((session, data))))

    def _give(self, session: str, data: bytes) -> None:
        client = self._node.streaming.get(session)
        if client is not None:
            client.received(data)

    async def _hand_on(self, instance: str, body: bytes) -> bool:
        if len(body) > MOST_BODY:
            raise Problem("body_too_large", f"At most {MOST_BODY} bytes are handed on to another instance.")
        if self._handing_on + len(body) > MOST_SAID:
            raise Problem("forward_overload")
        self._handing_on += len(body)
        try:
            return instance in (await self._bus.ask(instance, "said", body, SAID_S)).answers
        finally:
            self._handing_on -= len(body)

    async def _hears(self, _sender: str, body: bytes) -> bytes:
        self._give(*_said(body))
        return b""


def _failed(error: ClientError) -> bytes:
    return _encode(_Outcome(error=(error.code, error.text, error.temporary)))


def unavailable() -> ClientError:
    """
    What it means to whoever asked that a store cannot be asked.
    """
    return ClientError(ErrorCode.INTERNAL, "a store cannot be asked now", temporary=True)

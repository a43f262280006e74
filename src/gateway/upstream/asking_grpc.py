"""
A configured gRPC call: JSON to message, call, message to JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from google.protobuf.message_factory import GetMessageClass
from twisted.internet.interfaces import IReactorTime

from gateway.config.expressions import Denied, Expression
from gateway.core.identity import Identity
from gateway.core.problems import Problem
from gateway.core.trace import TraceContext
from gateway.core.transcoding.binding import Binding
from gateway.core.transcoding.encode import Encoders, Unwritable
from gateway.core.verdicts import ClientError, ErrorCode
from gateway.ports.backends import Facts
from gateway.ports.calls import Call, CallFailed, CallUpstream
from gateway.upstream.asking_data import given_by, key_text
from gateway.upstream.asking_errors import of_call, of_problem

__all__ = ["GrpcAsked", "evaluated", "own_key"]

_NO_TARGET: Final = CallFailed(14, local=True, kind="no_target")


def evaluated(values: Mapping[str, Expression], facts: Facts) -> dict[str, Any]:
    """
    Evaluate what the client can never set.

    Raises:
        ClientError: one of them has no value: nothing may be sent without it.
    """
    try:
        return {name: expression.value(facts) for name, expression in values.items()}
    except Denied as denied:
        raise ClientError(ErrorCode.PERMISSION_DENIED) from denied


def own_key(facts: Facts) -> str:
    """
    The key under which a command is done once, if the client gave one; empty otherwise.
    """
    command = facts.get("command", {})
    return str(command["idempotency_key"]) if command.get("own_key") else ""


class GrpcAsked:
    """
    One call (``ports.backends.Backend``).

    Args:
        upstream: Finds the upstream, which a reload may have replaced.
        tell: The header lines that say who calls; they become metadata.
        codes: Error codes for clients, see ``asking_errors``.
    """

    def __init__(
        self,
        upstream: Callable[[], CallUpstream],
        binding: Binding,
        encoders: Encoders,
        values: Mapping[str, Expression],
        *,
        tell: Callable[[Identity], bytes],
        timeout_s: float,
        codes: Mapping[str, int],
        clock: IReactorTime,
    ) -> None:
        self._upstream = upstream
        self._binding = binding
        self._encoders = encoders
        self._write = encoders.json(binding.method.output_type)
        self._reply_class = GetMessageClass(binding.method.output_type)
        self._values = values
        self._tell = tell
        self._timeout_s = timeout_s
        self._codes = codes
        self._clock = clock

    async def ask(
        self, facts: Facts, data: bytes, identity: Identity | None, trace: TraceContext | None = None
    ) -> bytes:
        """
        Make the call (``Backend.ask``).
        """
        values = evaluated(self._values, facts)
        try:
            message = self._binding.message({}, b"", given_by(data) or b"{}", b"application/json", values)
        except Problem as problem:
            raise of_problem(problem) from problem
        key = own_key(facts)
        metadata = self._metadata(identity, key)
        call = Call(self._binding.call, message, metadata, self._timeout_s, bool(key), self._reply_class, trace)
        try:
            reply = await self._upstream().call(call)
            return self._write(reply.message)
        except CallFailed as failed:
            raise of_call(failed, self._codes, self._encoders, verified=identity is not None) from failed
        except Problem as problem:
            raise of_call(_NO_TARGET, self._codes, self._encoders, verified=identity is not None) from problem
        except Unwritable as error:
            raise ClientError(ErrorCode.INTERNAL) from error

    def _metadata(self, identity: Identity | None, key: str) -> list[tuple[str, str | bytes]]:
        pairs: list[tuple[str, str | bytes]] = []
        if identity is not None:
            for line in self._tell(identity).split(b"\r\n"):
                name, colon, value = line.partition(b": ")
                if colon:
                    pairs.append((name.decode("ascii").lower(), value.decode("latin-1")))
        if key:
            pairs.append(("idempotency-key", key_text(key)))
        return pairs

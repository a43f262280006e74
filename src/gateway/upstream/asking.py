"""
Configured calls made callable: decisions, snapshots, methods and lifecycle facts all go through here.

The expressions and messages are compiled when the configuration is read, so that what cannot work is
told then; targets are looked up when the call is made, so that a reload needs nothing made anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from gateway.config.expressions import ExpressionError, compile_expression
from gateway.config.realtime_sections import BackendCall, Publishing, Rpc
from gateway.config.sections import Upstream
from gateway.core.identity import Identity
from gateway.core.transcoding.binding import Binding, RequestOptions
from gateway.core.transcoding.rules import BadRule, direct
from gateway.core.verdicts import ClientError, ErrorCode
from gateway.ports.backends import Backend
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.spans import Spans
from gateway.upstream.asking_grpc import GrpcAsked
from gateway.upstream.asking_http import HttpAsked
from gateway.upstream.backends import Backends
from gateway.upstream.call_backends import CallBackends
from gateway.upstream.descriptors import Schema, SchemaError

__all__ = ["Asking", "Maker", "bound"]

T = TypeVar("T")

Tell = Callable[[Upstream], Callable[[Identity], bytes]]
"""Makes the builder of the header lines that tell an upstream who calls."""


class Asking:
    """
    The upstreams that calls are made to.

    Args:
        random: Evenly from 0 to 1.
    """

    def __init__(
        self,
        reactor: Any,
        backends: Backends,
        calls: CallBackends,
        tell: Tell,
        random: Callable[[], float],
        metrics: Metrics,
        spans: Spans,
    ) -> None:
        self.reactor = reactor
        self.backends = backends
        self.calls = calls
        self.tell = tell
        self.random = random
        self.metrics = metrics
        self.spans = spans

    def maker(self, sections: Iterable[Upstream], schemas: Mapping[str, Schema]) -> Maker:
        """
        Return what makes calls to the upstreams of *sections*, before or after these are in force.
        """
        return Maker(self, {section.name: section for section in sections}, schemas)


class Maker:
    """
    Makes calls callable.
    """

    def __init__(self, asking: Asking, sections: Mapping[str, Upstream], schemas: Mapping[str, Schema]) -> None:
        self._asking = asking
        self._sections = sections
        self._schemas = schemas

    def __call__(self, section: BackendCall, roots: frozenset[str], *, lenient: bool = False) -> Backend:
        """
        Make *section* callable.

        Args:
            roots: What its expressions may name.
            lenient: Members of the data that a gRPC request has no field for are left out. They always are where
                a publication is asked about: what is published and what is asked are two things.

        Raises:
            ValueError: it does not fit its upstream.
        """
        upstream = self._sections.get(section.upstream)
        if upstream is None:
            raise ValueError(f"no upstream is named {section.upstream!r}")
        where = f"{section.call or section.http} of upstream {upstream.name!r}"
        try:
            values = {name: compile_expression(source, roots) for name, source in section.set}
        except ExpressionError as error:
            raise ValueError(f"{where}: {error}") from error
        asking = self._asking
        common: dict[str, Any] = {
            "tell": asking.tell(upstream),
            "timeout_s": upstream.timeout_s if section.timeout_s is None else section.timeout_s,
            "codes": {name: int(code) for name, code in section.errors} if isinstance(section, Rpc) else {},
        }
        name = upstream.name
        if section.http:
            return HttpAsked(
                _finder(asking.backends.cluster, name),
                upstream,
                section.http,
                values,
                reactor=asking.reactor,
                random=asking.random,
                metrics=asking.metrics,
                spans=asking.spans,
                **common,
            )
        schema = self._schemas.get(name)
        if schema is None:
            raise ValueError(f"{where}: the upstream has no descriptors: set descriptors or reflection")
        try:
            binding = bound(section, schema, lenient=lenient)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        return GrpcAsked(
            _finder(asking.calls.upstream, name),
            binding,
            schema.codecs.encoders(),
            values,
            clock=asking.reactor,
            **common,
        )


def bound(section: BackendCall, schema: Schema, *, lenient: bool = False) -> Binding:
    """
    Compile a gRPC call's request.

    Raises:
        ValueError: there is no such method, it streams, or a field of ``set`` is none of its request's.
    """
    try:
        method = schema.method(section.call).descriptor
        if method.client_streaming or method.server_streaming:
            raise ValueError("a stream answers no command")
        return direct(
            method,
            schema.codecs,
            set_fields=dict(section.set),
            options=RequestOptions(ignore_unknown_fields=lenient or isinstance(section, Publishing)),
        )
    except (SchemaError, BadRule) as error:
        raise ValueError(str(error)) from error


def _finder(find: Callable[[str], T], name: str) -> Callable[[], T]:
    def found() -> T:
        try:
            return find(name)
        except KeyError:
            # A reload took the upstream away between the command and its call.
            raise ClientError(ErrorCode.INTERNAL) from None

    return found

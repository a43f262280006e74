"""
The real-time side put together: stores, rules, node, and the paths at which clients come in.

Part of the composition root: it names concrete classes and says who knows whom, and decides
nothing about a client.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib import import_module
from typing import Any, Final, Literal

from twisted.python.failure import Failure

from gateway.auth.certificates import Certificates
from gateway.auth.credentials import CredentialSource
from gateway.browsing import origins_of_socket, rules_of_socket
from gateway.config.checks.realtime import CHANNEL_ROOTS, CLIENT_ROOTS, COMMAND_ROOTS
from gateway.config.expressions import Expression, compile_expression
from gateway.config.realtime_sections import WebSocket
from gateway.config.sections import Config
from gateway.core.browser_rules import BrowserRules
from gateway.core.problems import Problem
from gateway.core.routes import Entry
from gateway.dialects.centrifuge_json import CentrifugeJson
from gateway.dialects.centrifuge_protobuf import CentrifugeProtobuf
from gateway.node.opening import Openings
from gateway.node.operations import Operations
from gateway.node.plan import ServedRoute
from gateway.node.rate_limits import RateLimits
from gateway.node.realtime import RealtimeNode
from gateway.node.rulebook import Rulebook
from gateway.node.session_log import SessionLog
from gateway.ports.backends import Backend
from gateway.ports.clients import ClientSide, ClientTransport, Form, Opening
from gateway.ports.dialect import Dialect
from gateway.ports.http import Exchange, RouteHandler
from gateway.ports.identity import Authenticator
from gateway.storage import Storage
from gateway.telemetry.metrics import Metrics, package_version
from gateway.telemetry.realtime import RealtimeMetrics
from gateway.telemetry.spans import Spans
from gateway.telling import EventTelling
from gateway.upstream.asking import Maker
from gateway.web.emulation import Emulation
from gateway.web.streams import LineForm, MessageForm, SseForm, StreamEdge
from gateway.ws.closing import ClosingWatch
from gateway.ws.edge import WebSocketEdge
from gateway.ws.framing import CompressedForm, FrameForm
from gateway.ws.lean import missing

__all__ = ["Live"]

_TOLD: Final = COMMAND_ROOTS | CLIENT_ROOTS
HOOKS: Final = {
    "on_connect": _TOLD,
    "on_disconnect": _TOLD,
    "on_subscribe": _TOLD | CHANNEL_ROOTS,
    "on_unsubscribe": _TOLD | CHANNEL_ROOTS,
}
"""Lifecycle calls, and what their expressions may name."""


@cache
def _expression(source: str) -> Expression:
    return compile_expression(source, CLIENT_ROOTS)


def _conn_info(section: WebSocket) -> Expression | None:
    return _expression(section.info) if section.info is not None else None


class Live:
    """
    The real-time side of one instance.

    Args:
        storage: Its stores.
        refuse: The HTTP edge's way to answer with a problem.
        crashed: Its way to report a failure of our own.
        opened: Told of answers that go on for as long as their clients stay.
    """

    def __init__(
        self,
        reactor: Any,
        config: Config,
        *,
        authenticator: Authenticator,
        storage: Storage,
        metrics: Metrics,
        spans: Spans,
        log: Any,
        wall: Callable[[], float],
        refuse: Callable[[Exchange, Problem], None],
        crashed: Callable[[Exchange, Failure], None],
        opened: Callable[[Exchange], None],
    ) -> None:
        self._reactor = reactor
        self._authenticator = authenticator
        self._wall = wall
        self._refuse = refuse
        self._revocations = storage.revocations
        self._crashed = crashed
        self._opened = opened
        self._log = log
        self._metrics = metrics
        self._ends_with_process = storage.ends_with_process
        self._events = EventTelling(reactor, storage, spans, log, self._task_failed, config.privacy.of("events"))
        sessions = SessionLog(log, self._events.content.client_type)
        self.node = RealtimeNode(
            clock=reactor,
            wall=wall,
            bits=secrets.randbits,
            random=random.random,
            instance=secrets.token_hex(8),
            version=package_version(),
            section=config.realtime,
            connections_per_user=config.limits.connections_per_user,
            rules=Rulebook((), (), _nobody),
            hooks={},
            conn_infos=_conn_info,
            stores=storage.stores,
            store=config.store,
            authenticator=authenticator,
            revocations=storage.revocations,
            metrics=RealtimeMetrics(metrics.registry, metrics.auth_failures),
            log=log,
            witnesses=(sessions,) if config.log.sessions else (),
            spans=spans,
            events=self._events.content,
            rates=RateLimits(storage.limiter, storage.local, metrics.limit_decisions, reactor.seconds),
        )
        self._events.watch(self.node)
        self.operations = Operations(self.node)
        self._watch = ClosingWatch(reactor)
        self._forms: dict[str, _Forms] = {}
        self._lacks = missing()
        if self._lacks:
            log.warning("websocket.long_way", lacks=self._lacks)

    def _task_failed(self, name: str, failure: Failure) -> None:
        self._log.error("background.failed", task=name, exception=failure.getTraceback())

    def start(self) -> None:
        """
        Be heard by other instances, and begin what runs by itself.
        """
        self.node.start()
        self._events.start()

    async def stop(self) -> None:
        """
        Close every client, and tell what is left to be told.
        """
        await self.node.stop()
        if self._ends_with_process:
            await self.node.sessions.finish()
        await self._events.stop()

    def prepare(self, config: Config, make: Maker) -> Callable[[], None]:
        """
        Compile what *config* says; return what puts it in force.

        Args:
            make: Makes a configured call callable.

        Raises:
            ValueError: a rule or a call cannot be compiled, or a dialect cannot be loaded.
        """
        rules = Rulebook(config.channels, config.rpc, make)
        hooks: dict[str, Backend] = {}
        for name, roots in HOOKS.items():
            section = getattr(config.realtime, name)
            if section is not None:
                hooks[name] = make(section, roots, lenient=True)
        for socket in config.websocket:
            if socket.dialect not in self._forms:
                self._forms[socket.dialect] = _Forms(dialects_of(socket.dialect))

        change_events = self._events.prepare(config, make)

        def change() -> None:
            change_events()
            self.node.rates.configure(config.limits)
            self.node.configure(config.realtime, config.limits.connections_per_user, rules, hooks)

        return change

    def entries(self, config: Config) -> list[Entry[ServedRoute]]:
        """
        Every path at which clients come in.
        """
        source = CredentialSource(config.auth)
        certificates = Certificates(config.auth.certificate, self._revocations.is_revoked)
        certified, country = config.tracing.trust_certificates, config.events.country_header
        return [
            entry
            for section in config.websocket
            for entry in self._entries(
                section,
                Openings(
                    section,
                    self._authenticator,
                    source,
                    self._wall,
                    certified=certified,
                    country=country,
                    origins=origins_of_socket(config, section),
                    certificates=certificates,
                ),
                rules_of_socket(config, section),
            )
        ]

    def _entries(self, section: WebSocket, open_: Openings, browsers: BrowserRules) -> list[Entry[ServedRoute]]:
        forms = self._forms[section.dialect]
        entry = partial(_entry, browsers)
        common: dict[str, Any] = {"refuse": self._refuse, "crashed": self._crashed}
        found = [
            entry(
                section.path,
                b"GET",
                WebSocketEdge(
                    self._reactor,
                    section,
                    forms=forms.plain,
                    compressed=forms.compressed if section.compression else {},
                    open_=open_,
                    accept=self._accept,
                    watch=self._watch,
                    lean=not self._lacks,
                    **common,
                ),
            )
        ]
        streams: dict[str, Any] = {"open_": open_, "accept": self._accept, "most_bytes": section.max_message_bytes}
        streams["opened"] = self._opened
        if section.sse is not None:
            edge = StreamEdge("sse", text=forms.events, binary=None, **streams, **common)
            found.append(entry(section.sse, b"GET", edge))
        if section.http_stream is not None:
            edge = StreamEdge("http_stream", text=forms.lines, binary=forms.messages, **streams, **common)
            found.append(entry(section.http_stream, b"POST", edge))
        if section.emulation is not None:
            said = Emulation(
                self.node.cluster.said,
                check_origin=open_.check_origin,
                most_bytes=section.max_message_bytes,
                **common,
            )
            found.append(entry(section.emulation, b"POST", said, "said"))
        return found

    def _accept(self, transport: ClientTransport, opening: Opening) -> ClientSide:
        return self.node.accept(transport, opening)


def _nobody(*_: Any) -> Backend:
    raise RuntimeError("an empty configuration calls nobody")


def _entry(
    browsers: BrowserRules,
    path: str,
    method: bytes,
    handler: RouteHandler,
    kind: Literal["opening", "said"] = "opening",
) -> Entry[ServedRoute]:
    methods = (method.decode("ascii"),)
    # The name is the path: metrics and access lines tell several of them apart.
    served = ServedRoute(path, handler, auth=False, methods=methods, template=path, kind=kind, browsers=browsers)
    return Entry(path, frozenset((method,)), served)


class _Forms:
    """
    How one dialect is framed, for every edge that has it: what is published is framed once for all of them.
    """

    def __init__(self, dialects: tuple[Dialect, ...]) -> None:
        self.plain: Mapping[str, Form] = {dialect.subprotocol: FrameForm(dialect) for dialect in dialects}
        self.compressed: Mapping[str, Form] = {dialect.subprotocol: CompressedForm(dialect) for dialect in dialects}
        text = next((dialect for dialect in dialects if not dialect.binary), dialects[0])
        binary = next((dialect for dialect in dialects if dialect.binary), None)
        self.events = SseForm(text)
        self.lines = LineForm(text)
        self.messages = MessageForm(binary) if binary is not None else None


def dialects_of(name: str) -> tuple[Dialect, ...]:
    """
    Load a dialect: ours in both encodings, or an application's ``module:Class``.

    Raises:
        ValueError: there is no such class.
    """
    if name == "centrifuge":
        return CentrifugeJson(), CentrifugeProtobuf()
    module, colon, attribute = name.partition(":")
    try:
        if not colon:
            raise ValueError("expected centrifuge, or module:Class")
        return (getattr(import_module(module), attribute)(),)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"dialect {name!r} cannot be loaded: {error}") from error

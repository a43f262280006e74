"""
WebSockets, channels and methods: each leads somewhere, and nothing is open by omission.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from gateway.config.checks.browsers import check_origins
from gateway.config.checks.routes import check_certificate
from gateway.config.expression_shortcuts import equalities
from gateway.config.expression_source import analyse
from gateway.config.expressions import check as check_expression
from gateway.config.faults import KeyPath
from gateway.config.realtime_sections import BackendCall, Channel, Decision, Rpc, WebSocket
from gateway.config.sections import Config
from gateway.config.walk import Walk, suggest
from gateway.core.channels import BadPattern, ChannelTable, variables_of
from gateway.core.problems import CATALOGUE

__all__ = ["CHANNEL_ROOTS", "CLIENT_ROOTS", "COMMAND_ROOTS", "WORDS", "check", "check_backend", "variables_from"]

CLIENT_ROOTS: Final = frozenset(("claims", "client", "session"))
"""What an expression may name wherever there is a connection."""

CHANNEL_ROOTS: Final = CLIENT_ROOTS | {"channel"}
"""The same where there is also a channel."""

COMMAND_ROOTS: Final = frozenset(("command", "data"))
"""And where there is a command with data."""

WORDS: Final = ("authenticated", "anybody", "token")
"""Decisions that are words."""

_call = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*/[A-Za-z_][A-Za-z0-9_]*").fullmatch
_http = re.compile(r"(POST|PUT|PATCH|GET|DELETE) (/[!\"$-~]*)").fullmatch
_field = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*").fullmatch
_method = re.compile(r"[!-~]{1,255}").fullmatch
_dialect = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*").fullmatch
_GRPC_STATUSES: Final = tuple(kind.removeprefix("grpc_").upper() for kind in CATALOGUE if kind.startswith("grpc_"))
_grpc_status = re.compile(r"[1-9]|1[0-6]|\*").fullmatch
_status = re.compile(r"[345][0-9]{2}|\*").fullmatch
_code = re.compile(r"[1-9][0-9]{2,3}").fullmatch


def variables_from(rule: str) -> dict[str, tuple[str, ...]]:
    """
    What a rule says a channel's variables must equal: ``channel.user_id == claims.sub`` gives ``user_id``.
    """
    found: dict[str, tuple[str, ...]] = {}
    for left, right in equalities(analyse(rule, CHANNEL_ROOTS)):
        for one, other in ((left, right), (right, left)):
            if one[0] == "channel" and len(one) == 2 and other[0] != "channel":
                found[one[1]] = other
    return found


def check(config: Config, walk: Walk) -> None:
    """
    Report what is wrong with the real-time sections.
    """
    seen: dict[str, int] = {}
    for index, section in enumerate(config.websocket):
        _websocket(config, section, ("websocket", index), seen, walk)
    for channel in config.channels:
        _channel(config, channel, ("channels", channel.pattern), walk)
    _patterns(config.channels, walk)
    for method in config.rpc:
        _rpc(config, method, ("rpc", method.method), walk)
    for name in ("on_connect", "on_disconnect", "on_subscribe", "on_unsubscribe"):
        hook: BackendCall | None = getattr(config.realtime, name)
        if hook is not None:
            roots = CHANNEL_ROOTS if name.endswith("subscribe") else CLIENT_ROOTS
            check_backend(config, hook, ("realtime", name), roots | COMMAND_ROOTS, (), walk)
    if (config.channels or config.rpc) and not config.websocket and ("websocket",) not in walk.broken:
        walk.fault(("channels",) if config.channels else ("rpc",), "nobody can reach this: there is no [[websocket]]")


def _websocket(config: Config, section: WebSocket, path: KeyPath, seen: dict[str, int], walk: Walk) -> None:
    index = path[-1]
    assert isinstance(index, int)
    for key in ("path", "sse", "http_stream", "emulation"):
        value = getattr(section, key)
        if value is None:
            continue
        if not re.fullmatch(r"/[A-Za-z0-9._~/-]*", value):
            walk.fault((*path, key), f"{value!r} is no plain path such as /ws")
        elif value in seen:
            walk.fault((*path, key), f"{value} is taken by websocket[{seen[value]}] already")
        else:
            seen[value] = index
    if (section.sse or section.http_stream) and section.emulation is None:
        walk.fault(
            path, 'streams of clients need a place for their commands: emulation = "/emulation"', (*path, "emulation")
        )
    if section.dialect != "centrifuge" and not _dialect(section.dialect):
        walk.fault((*path, "dialect"), f"{section.dialect!r} is neither centrifuge nor module:Class")
    check_origins(section.origins or (), (*path, "origins"), walk)
    origins = config.cors.origins if section.origins is None else section.origins
    if "*" in (origins or ()) and "cookie" in section.credentials:
        where: KeyPath = ("cors", "origins") if section.origins is None else (*path, "origins")
        walk.fault(where, "any origin, and a token in a cookie: any page could act for its visitor")
    for at, place in enumerate(section.credentials):
        if place == "certificate":
            check_certificate(config, (*path, "credentials", at), walk)
        if place in ("cookie", "query") and getattr(config.auth, place) is None:
            name = "session" if place == "cookie" else "access_token"
            walk.fault(
                (*path, "credentials", at),
                f'takes the token from the {place}, and [auth] does not name it: {place} = "{name}"',
                ("auth", place),
            )
    if not section.credentials and not section.anonymous:
        walk.fault((*path, "credentials"), "must not be empty: nobody could connect")
    if not config.auth.issuer and not section.anonymous and "certificate" not in section.credentials:
        walk.fault(path, "requires a token, and there is no [[auth.issuer]] to accept one from", ("auth", "issuer"))
    if section.anonymous_claims and not section.anonymous:
        walk.fault((*path, "anonymous_claims"), "is only used with anonymous = true", (*path, "anonymous"))
    if section.pong_timeout_s >= section.ping_s:
        walk.fault(
            (*path, "pong_timeout"), "is not less than ping: a pong would be due after the next ping", (*path, "ping")
        )
    if section.info is not None:
        _expression(section.info, (*path, "info"), CLIENT_ROOTS, walk)


def _patterns(channels: Iterable[Channel], walk: Walk) -> None:
    sound: list[tuple[str, None]] = []
    for channel in channels:
        try:
            ChannelTable([*sound, (channel.pattern, None)])
        except BadPattern as bad:
            walk.fault(("channels", channel.pattern), str(bad))
        else:
            sound.append((channel.pattern, None))


def _channel(config: Config, channel: Channel, path: KeyPath, walk: Walk) -> None:
    try:
        variables = variables_of(channel.pattern)
    except BadPattern:
        return
    _decision(config, channel.subscribe, (*path, "subscribe"), CHANNEL_ROOTS, variables, walk)
    if channel.publish is not None:
        here = (*path, "publish")
        _decision(config, channel.publish, here, CHANNEL_ROOTS | COMMAND_ROOTS, variables, walk)
        if channel.publish.data and not channel.publish.upstream:
            walk.fault(
                (*here, "data"), "is a field of a backend's answer, and no backend is asked", (*here, "upstream")
            )
        if channel.publish.rule == "token":
            walk.fault(here, "a subscription token says nothing about publishing")
    if channel.snapshot is not None:
        check_backend(config, channel.snapshot, (*path, "snapshot"), CHANNEL_ROOTS, variables, walk)
    if channel.join_leave and not channel.presence:
        walk.fault(
            (*path, "join_leave"), "needs presence = true: who comes first is only known with it", (*path, "presence")
        )
    if channel.rate is not None and channel.publish is None:
        walk.fault((*path, "rate"), "is only used where clients publish", (*path, "publish"))
    if channel.info is not None:
        _expression(channel.info, (*path, "info"), CHANNEL_ROOTS, walk, variables)
    if channel.server_side:
        unknown = [name for name in variables if name not in variables_from(channel.subscribe.rule)]
        if unknown:
            walk.fault(
                (*path, "server_side"),
                f"which {unknown[0]} is a connection's own? The rule must say so: "
                f'subscribe = "channel.{unknown[0]} == claims.sub"',
                (*path, "subscribe"),
            )


def _decision(
    config: Config, decision: Decision, path: KeyPath, roots: frozenset[str], variables: tuple[str, ...], walk: Walk
) -> None:
    asks = bool(decision.call or decision.http or decision.upstream)
    if not asks:
        if not decision.rule:
            walk.fault(path, 'decides nothing: "authenticated", an expression, or a backend call')
        elif decision.rule not in WORDS:
            _expression(
                decision.rule,
                (*path, "rule") if walk.given((*path, "rule")) else path,
                roots,
                walk,
                variables,
                rule=True,
            )
        return
    if decision.rule and decision.rule not in ("authenticated", "anybody"):
        _expression(decision.rule, (*path, "rule"), roots, walk, variables, rule=True)
    check_backend(config, decision, path, roots, variables, walk)


def _rpc(config: Config, method: Rpc, path: KeyPath, walk: Walk) -> None:
    if not _method(method.method) or "*" in method.method[:-1]:
        walk.fault(path, f"{method.method!r} is no method: visible ASCII, * only at its end")
    roots = CLIENT_ROOTS | COMMAND_ROOTS
    if method.when is not None:
        _expression(method.when, (*path, "when"), roots, walk, rule=True)
    for name, code in method.errors:
        if not _code(code) or not 400 <= int(code) < 2000:
            walk.fault((*path, "errors", name), f"{code!r} is no error code of an application: 400 to 1999")
        if method.call and name not in _GRPC_STATUSES and not _grpc_status(name):
            walk.fault((*path, "errors", name), f"{name!r} is no gRPC status{suggest(name, _GRPC_STATUSES)}")
        elif method.http and not _status(name):
            walk.fault((*path, "errors", name), f"{name!r} is no HTTP status: 300 to 599, or * for all")
    if method.echo:
        if method.upstream:
            walk.fault((*path, "upstream"), "is not asked: the gateway itself answers an echo", (*path, "echo"))
        return
    check_backend(config, method, path, roots, (), walk)


def check_backend(
    config: Config, call: BackendCall, path: KeyPath, roots: frozenset[str], variables: tuple[str, ...], walk: Walk
) -> None:
    """
    Report what is wrong with a call to a backend.

    Args:
        roots: What its expressions may name; of a channel its *variables*.
    """
    upstreams = {upstream.name: upstream for upstream in config.upstream}
    upstream = upstreams.get(call.upstream)
    if not call.upstream:
        walk.fault(path, f"asks nobody: name its upstream{suggest('', upstreams)}", (*path, "upstream"))
    elif upstream is None and ("upstream",) not in walk.broken:
        there = suggest(call.upstream, upstreams) or "; there is no [upstream.NAME] at all"
        walk.fault((*path, "upstream"), f"no upstream is named {call.upstream!r}{there}")
    if bool(call.call) == bool(call.http):
        walk.fault(path, "names one of call (gRPC) and http", (*path, "call"), (*path, "http"))
    if call.call:
        if not _call(call.call):
            walk.fault((*path, "call"), f"{call.call!r} is no method; expected package.Service/Method")
        if upstream is not None and not upstream.grpc:
            walk.fault((*path, "call"), f"{call.upstream!r} has no grpc targets", ("upstream", call.upstream, "grpc"))
    if call.http:
        if not _http(call.http):
            walk.fault((*path, "http"), f"{call.http!r} is no request such as POST /internal/may-chat")
        if upstream is not None and not upstream.http:
            walk.fault((*path, "http"), f"{call.upstream!r} has no http targets", ("upstream", call.upstream, "http"))
    for name, source in call.set:
        here = (*path, "set", name)
        if not _field(name):
            walk.fault(here, "is no field: letters, digits and _, with dots between fields")
        _expression(source, here, roots, walk, variables)


def _expression(
    source: str,
    path: KeyPath,
    roots: frozenset[str],
    walk: Walk,
    variables: tuple[str, ...] = (),
    *,
    rule: bool = False,
) -> None:
    wrong = check_expression(source, roots, rule=rule)
    for fault in wrong:
        walk.fault(path, fault)
    if wrong:
        return
    for names, _, _ in analyse(source, roots).paths:
        if names[0] == "channel" and len(names) > 1 and names[1] not in (*variables, "name"):
            there = suggest(names[1], variables) or "; a pattern names its parts like {table_id}"
            walk.fault(path, f"channel.{names[1]}: the pattern has no such variable{there}")

"""
Routes: each leads somewhere, and no two are in each other's way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

from gateway.config.expression_source import analyse
from gateway.config.expressions import check as check_expression
from gateway.config.faults import KeyPath, dotted
from gateway.config.sections import Config, Route, Upstream
from gateway.config.units import format_duration
from gateway.config.walk import Walk, suggest
from gateway.core.path import canonical
from gateway.core.problems import Problem
from gateway.core.routes import NEVER_ROUTED, BadTemplate, Entry, RouteConflict, RouteTable
from gateway.core.template import Template, Wildcard, parse

__all__ = ["BUILT_IN", "REQUEST_ROOTS", "check", "check_certificate", "entries"]

REQUEST_ROOTS: Final = frozenset(("claims", "path", "query", "header", "request"))
"""What an expression of a route may begin its paths with."""

BUILT_IN: Final = ("/health", "/ready", "/livez", "/readyz")
"""Paths on the clients' port that the gateway answers itself."""

_method = re.compile(r"[A-Z][A-Z0-9-]*").fullmatch
_call = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*/[A-Za-z_][A-Za-z0-9_]*").fullmatch
_service = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*").fullmatch
_field = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*").fullmatch
_scope = re.compile(r"[!#-\[\]-~]+").fullmatch


def entries(routes: Iterable[Route]) -> list[Entry[Route]]:
    """
    Make the entries of a route table of those *routes* that have a path; the position is the index.
    """
    return [
        Entry(
            route.path,
            frozenset(method.encode() for method in route.methods),
            route,
            position=index,
            # A call's fields are filled from the path's variables; nothing decodes them again.
            encoded_slash=route.call is not None,
        )
        for index, route in enumerate(routes)
        if route.path is not None
    ]


def check(config: Config, walk: Walk) -> None:
    """
    Report what is wrong with each route, and with all of them together.
    """
    upstreams = {upstream.name: upstream for upstream in config.upstream}
    names: dict[str, int] = {}
    for index, route in enumerate(config.route):
        path: KeyPath = ("route", index)
        template = _path(route, path, walk)
        upstream = _upstream(route, path, upstreams, walk)
        if route.call is not None or route.service is not None:
            _grpc(route, path, upstream, walk)
        else:
            _plain(route, path, upstream, template, walk)
        _auth(config, route, path, walk)
        _expressions(route, path, template, walk)
        limit = upstream.try_timeout_s if upstream is not None else None
        if limit is not None and route.timeout_s is not None and limit > route.timeout_s:
            walk.fault(
                (*path, "timeout"),
                f"{format_duration(route.timeout_s)} is less than upstream.{route.upstream}.try_timeout, "
                f"{format_duration(limit)} for one attempt",
                ("upstream", route.upstream, "try_timeout"),
            )
        if route.name is not None:
            if route.name in names:
                walk.fault((*path, "name"), f"{route.name!r} is the name of route[{names[route.name]}] already")
            names.setdefault(route.name, index)
    _conflicts(config, walk)


def _path(route: Route, path: KeyPath, walk: Walk) -> Template | None:
    for index, method in enumerate(route.methods):
        here = (*path, "methods", index)
        if not _method(method):
            meant = f"; did you mean {method.upper()!r}?" if _method(method.upper()) else ""
            walk.fault(here, f"{method!r} is no method{meant}")
        elif method.encode() in NEVER_ROUTED:
            walk.fault(here, f"{method} is never forwarded")
    if route.path is None:
        if route.service is None:
            walk.fault(path, 'has no path: path = "/api/players/**"', (*path, "path"), (*path, "service"))
        return None
    if route.service is not None:
        walk.fault(
            (*path, "path"),
            "stands beside service, whose methods bring their own paths; use call to map one method to this path",
            (*path, "service"),
        )
    try:
        template = parse(route.path)
    except BadTemplate as bad:
        walk.fault((*path, "path"), f"{route.path!r}, column {bad.column}: {bad.what}")
        return None
    if template.static_path is not None and template.static_path.decode() in BUILT_IN:
        walk.fault(
            (*path, "path"),
            f"{route.path} is answered by the gateway itself; the backend's own can be reached under another prefix",
        )
    return template


def _upstream(route: Route, path: KeyPath, upstreams: dict[str, Upstream], walk: Walk) -> Upstream | None:
    here = (*path, "upstream")
    if not route.upstream:
        walk.fault(path, f"leads to nothing: name its upstream{suggest('', upstreams)}", here)
        return None
    upstream = upstreams.get(route.upstream)
    if upstream is None and ("upstream",) not in walk.broken:
        there = suggest(route.upstream, upstreams) or "; there is no [upstream.NAME] at all"
        walk.fault(here, f"no upstream is named {route.upstream!r}{there}")
    return upstream


def _grpc(route: Route, path: KeyPath, upstream: Upstream | None, walk: Walk) -> None:
    if route.call is not None and route.service is not None:
        walk.fault((*path, "call"), "stands beside service; a route is one or the other", (*path, "service"))
    if route.call is not None and not _call(route.call):
        walk.fault((*path, "call"), f"{route.call!r} is no method; expected package.Service/Method")
    if route.service is not None:
        if not _service(route.service):
            walk.fault((*path, "service"), f"{route.service!r} is no service; expected package.Service")
        for key in ("methods", "body"):
            if getattr(route, key):
                walk.fault(
                    (*path, key),
                    "is stated by the methods of the service; use call to map one method here",
                    (*path, "service"),
                )
    if route.strip_prefix is not None:
        walk.fault((*path, "strip_prefix"), "is only used where the path is forwarded, and this is a gRPC call")
    if upstream is not None and not upstream.grpc:
        walk.fault(
            (*path, "upstream"),
            f"{route.upstream!r} has no grpc targets, and this route makes gRPC calls",
            ("upstream", route.upstream, "grpc"),
        )
    if route.body is not None and route.body != "*" and not _field(route.body):
        walk.fault((*path, "body"), f'{route.body!r} is neither "*" nor the name of a field')
    for name, _ in route.set:
        if not _field(name):
            walk.fault((*path, "set", name), "is no field: letters, digits and _, with dots between fields")


def _plain(route: Route, path: KeyPath, upstream: Upstream | None, template: Template | None, walk: Walk) -> None:
    for key in ("body", "set"):
        if getattr(route, key):
            walk.fault(
                (*path, key),
                "is only used in gRPC calls; name the method with call",
                (*path, "call"),
                (*path, "service"),
            )
    if upstream is not None and not upstream.http and upstream.grpc:
        walk.fault(
            (*path, "upstream"),
            f"{route.upstream!r} has grpc targets only, and this route forwards HTTP; add call or service, or http targets",
            ("upstream", route.upstream, "http"),
            (*path, "call"),
            (*path, "service"),
        )
    if route.strip_prefix is None:
        return
    here = (*path, "strip_prefix")
    prefix = route.strip_prefix
    if not prefix.startswith("/") or prefix.endswith("/"):
        walk.fault(here, f"{prefix!r} begins with / and does not end with it, such as /api")
    elif not _is_canonical(prefix):
        walk.fault(here, f"{prefix!r} is not how a canonical path is written: ASCII, with escapes such as %C3%A9 for é")
    elif template is not None:
        wanted = [unquote(segment) for segment in prefix.split("/")[1:]]
        leading = _leading_literals(template)
        if leading[: len(wanted)] != wanted:
            fixed = "/" + "/".join(leading)
            walk.fault(
                here, f"{prefix!r} is not how every path of {route.path} begins; that is {fixed}", (*path, "path")
            )


def _is_canonical(path: str) -> bool:
    try:
        return canonical(path.encode()).path == path.encode()
    except Problem:
        return False


def _leading_literals(template: Template) -> list[str]:
    literals = []
    for part in template.parts:
        if isinstance(part, Wildcard):
            break
        literals.append(part)
    return literals


def check_certificate(config: Config, path: KeyPath, walk: Walk) -> None:
    """
    Report that certificates are taken where no listener asks for one.
    """
    if all(listener.client_certificate == "none" for listener in config.listen.clients):
        walk.fault(
            path,
            'no listener asks for one: client_certificate = "optional", with client_ca_file',
            ("listen", "clients"),
        )


def _auth(config: Config, route: Route, path: KeyPath, walk: Walk) -> None:
    if route.auth == "none":
        for key, given in (("scopes", bool(route.scopes)), ("credentials", route.credentials != ("header",))):
            if given:
                walk.fault((*path, key), 'is never used: auth = "none" asks for no token', (*path, "auth"))
        return
    if not config.auth.issuer and "certificate" not in route.credentials:
        walk.fault(
            path,
            'requires a token, and there is no [[auth.issuer]] to accept one from; add it, or auth = "none"',
            ("auth", "issuer"),
            (*path, "auth"),
        )
    if not route.credentials:
        walk.fault((*path, "credentials"), 'must not be empty; auth = "none" opens a route to anybody')
    for index, place in enumerate(route.credentials):
        if place == "certificate":
            check_certificate(config, (*path, "credentials", index), walk)
            upstream = next((upstream for upstream in config.upstream if upstream.name == route.upstream), None)
            if upstream is not None and upstream.identity == "token":
                walk.fault(
                    (*path, "credentials", index),
                    f'upstream.{upstream.name} is told by the client\'s own token, and a certificate is none; identity = "minted" makes one',
                    ("upstream", upstream.name, "identity"),
                )
        if place in ("cookie", "query") and getattr(config.auth, place) is None:
            name = "session" if place == "cookie" else "access_token"
            walk.fault(
                (*path, "credentials", index),
                f'takes the token from the {place}, and [auth] does not name it: {place} = "{name}"',
                ("auth", place),
            )
    for index, scope in enumerate(route.scopes):
        if not _scope(scope):
            walk.fault((*path, "scopes", index), f"{scope!r} is no scope: one word each, without spaces")


def _expressions(route: Route, path: KeyPath, template: Template | None, walk: Walk) -> None:
    found = [((*path, "set", name), source, False) for name, source in route.set]
    if route.when is not None:
        found.append(((*path, "when"), route.when, True))
    for here, source, rule in found:
        wrong = check_expression(source, REQUEST_ROOTS, rule=rule)
        for fault in wrong:
            walk.fault(here, fault)
        if not wrong:
            _names(route, here, source, template, walk)


def _names(route: Route, here: KeyPath, source: str, template: Template | None, walk: Walk) -> None:
    """Names that can never be there, so that the expression would deny every request."""
    variables = {variable.name.partition(".")[0] for variable in template.variables} if template is not None else None
    for names, _, _ in analyse(source, REQUEST_ROOTS).paths:
        if names[0] == "claims" and route.auth == "none":
            walk.fault(here, 'asks for claims, and auth = "none" asks nobody for a token', (*here[:2], "auth"))
        if names[0] == "header" and len(names) > 1 and names[1] != names[1].lower().replace("_", "-"):
            meant = names[1].lower().replace("_", "-")
            walk.fault(here, f"header names are lower-case here, and never hold _; did you mean header['{meant}']?")
        if names[0] == "path" and len(names) > 1 and variables is not None and names[1] not in variables:
            there = suggest(names[1], sorted(variables)) or "; name a segment of it with {" + names[1] + "}"
            walk.fault(here, f"path.{names[1]}: {route.path} has no such variable{there}", (*here[:2], "path"))


def _conflicts(config: Config, walk: Walk) -> None:
    sound = []
    for entry in entries(config.route):
        try:
            parse(entry.template)
        except BadTemplate:
            continue
        if not entry.methods & NEVER_ROUTED:
            sound.append(entry)
    try:
        RouteTable(sound)
    except RouteConflict as conflict:
        for pair in conflict.conflicts:
            first: KeyPath = ("route", pair.first.position, "path")
            walk.fault(
                ("route", pair.second.position, "path"),
                f"{pair.second.template} is in the way of {dotted(first[:2])}, {pair.first.template}: {pair.reason}; "
                "neither is more specific",
                first,
                ("route", pair.first.position, "methods"),
                ("route", pair.second.position, "methods"),
            )

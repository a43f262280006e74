"""
Backends: their targets, time-outs, and how they are told who calls.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from gateway.config.events_section import EVENT_CALL
from gateway.config.expressions import ExpressionError, compile_expression
from gateway.config.faults import KeyPath
from gateway.config.sections import Config, Upstream
from gateway.config.units import format_duration
from gateway.config.walk import Walk
from gateway.core.headers import is_reserved

__all__ = ["check"]

_name = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}").fullmatch
_authority = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*)|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})").fullmatch
_host = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*)|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?").fullmatch
_header = re.compile(r"[A-Za-z0-9!#$%&'*+.^`|~-]+").fullmatch
_method = re.compile(r"[A-Z][A-Z0-9-]*").fullmatch

_OURS: Final = (b"x-user-", b"x-auth-", b"x-gateway-")
_NOT_FOR_CLAIMS: Final = frozenset(("authorization", "cookie", "content-type", "content-encoding", "x-user-id"))
_STATED_BY_GATEWAY: Final = frozenset(("iss", "aud", "sub", "iat", "nbf", "exp", "jti"))
_RETRIED: Final = frozenset((408, 425, 429, *range(500, 600))) - {501, 505}
_HTTP: Final = "http://host:port, https://host:port or unix:/path"
_GRPC: Final = "host:port, grpcs://host:port or unix:/path"


def check(config: Config, walk: Walk) -> None:
    """
    Report what is wrong with each upstream.
    """
    for upstream in config.upstream:
        path: KeyPath = ("upstream", upstream.name)
        if not _name(upstream.name):
            walk.fault(path, "is no name for logs and metrics: letters, digits, and . _ - after the first")
        _targets(config, upstream, path, walk)
        _times(upstream, path, walk)
        _retry(upstream, path, walk)
        _identity(upstream, path, walk)


def _targets(config: Config, upstream: Upstream, path: KeyPath, walk: Walk) -> None:
    if not upstream.http and not upstream.grpc:
        walk.fault(path, 'has no targets: http = ["http://127.0.0.1:7001"], or grpc', (*path, "http"), (*path, "grpc"))
    for kind, targets in (("http", upstream.http), ("grpc", upstream.grpc)):
        for index, target in enumerate(targets):
            here = (*path, kind, index)
            wrong = _http_target(target) if kind == "http" else _grpc_target(target)
            if wrong:
                walk.fault(here, f"{_shown(target)}: {wrong}")
            elif target in targets[:index]:
                walk.fault(here, f"{target} is listed twice: it would get twice its share")
    takes_events = upstream.name == config.events.upstream and config.events.call == EVENT_CALL
    if upstream.grpc and upstream.descriptors is None and not upstream.reflection and not takes_events:
        walk.fault(
            (*path, "grpc"),
            'needs to know the methods: descriptors = "file.binpb", or reflection = true',
            (*path, "descriptors"),
            (*path, "reflection"),
        )
    if not upstream.grpc:
        for key, given in (("descriptors", upstream.descriptors is not None), ("reflection", upstream.reflection)):
            if given:
                walk.fault(
                    (*path, key), "is only used for gRPC, and this upstream has no grpc targets", (*path, "grpc")
                )
    tls = upstream.tls
    secure = any(target.startswith(("https://", "grpcs://")) for target in (*upstream.http, *upstream.grpc))
    if not secure and tls != type(tls)():
        walk.fault(
            (*path, "tls"),
            "is never used: no target begins with https:// or grpcs://",
            (*path, "http"),
            (*path, "grpc"),
        )
    if (tls.certificate_file is None) != (tls.key_file is None):
        has, lacks = ("certificate_file", "key_file") if tls.key_file is None else ("key_file", "certificate_file")
        walk.fault((*path, "tls", has), f"needs {lacks} beside it", (*path, "tls", lacks))
    if upstream.host is not None and upstream.host != "client" and not _host(upstream.host):
        walk.fault((*path, "host"), f'{upstream.host!r} is neither a host, host:port, nor "client"')
    if upstream.health is not None and not upstream.health.path.startswith("/"):
        walk.fault(
            (*path, "health", "path") if walk.given((*path, "health", "path")) else (*path, "health"),
            f"{upstream.health.path!r} is no path; it begins with /",
        )


def _http_target(target: str) -> str:
    if target.startswith("unix:"):
        return "" if target[5:6] == "/" else "the path of a unix socket begins with /"
    scheme, separator, rest = target.partition("://")
    if not separator or scheme not in ("http", "https"):
        meant = f"; did you mean http://{target}?" if _authority(target) else ""
        return f"expected {_HTTP}{meant}"
    if "@" in rest:
        return "credentials do not belong in a target"
    if rest.strip("/") != rest or "/" in rest or "?" in rest:
        return "a target has no path; the route's path is forwarded, less its strip_prefix"
    return _port(rest, _HTTP)


def _grpc_target(target: str) -> str:
    if target.startswith("unix:"):
        return "" if target[5:6] == "/" else "the path of a unix socket begins with /"
    scheme, separator, rest = target.partition("://")
    if separator and scheme != "grpcs":
        meant = f"; did you mean {rest if scheme in ('http', 'grpc') else f'grpcs://{rest}'}?"
        return f"expected {_GRPC}{meant}"
    return _port(rest if separator else target, _GRPC)


def _port(authority: str, expected: str) -> str:
    found = _authority(authority)
    if found is None:
        return f"expected {expected}" if ":" in authority else f"the port is missing: expected {expected}"
    return "" if 0 < int(found[1]) < 65536 else "a port is from 1 to 65535"


def _shown(target: str) -> str:
    """*target* without what may be a password."""
    url = urlsplit(target) if "://" in target else None
    return repr(target) if url is None or "@" not in url.netloc else repr(f"{url.scheme}://***@{url.hostname}")


def _times(upstream: Upstream, path: KeyPath, walk: Walk) -> None:
    if upstream.try_timeout_s is not None and upstream.try_timeout_s > upstream.timeout_s:
        walk.fault(
            (*path, "try_timeout"),
            f"{format_duration(upstream.try_timeout_s)} for one attempt is more than timeout, "
            f"{format_duration(upstream.timeout_s)} for all of them",
            (*path, "timeout"),
        )
    for table, low, high in (
        ("outlier", "base_ejection", "max_ejection"),
        ("breaker", "open", "max_open"),
        ("retry", "backoff_base", "backoff_max"),
    ):
        section = getattr(upstream, table)
        if getattr(section, f"{low}_s") > getattr(section, f"{high}_s"):
            key = low if walk.given((*path, table, low)) else high
            walk.fault((*path, table, key), f"{low} is more than {high}", (*path, table, low), (*path, table, high))


def _retry(upstream: Upstream, path: KeyPath, walk: Walk) -> None:
    for index, status in enumerate(upstream.retry.statuses):
        if status not in _RETRIED:
            walk.fault(
                (*path, "retry", "statuses", index),
                f"{status} is no answer that a second attempt could better; "
                "expected 408, 425, 429, or one from 500 to 599 but 501 and 505",
            )
    for index, method in enumerate(upstream.retry.methods):
        if not _method(method):
            meant = f"; did you mean {method.upper()!r}?" if _method(method.upper()) else ""
            walk.fault((*path, "retry", "methods", index), f"{method!r} is no method{meant}")


def _identity(upstream: Upstream, path: KeyPath, walk: Walk) -> None:
    here = (*path, "identity_headers")
    if upstream.identity_headers and upstream.identity != "headers":
        walk.fault(here, f"is never used: identity is {upstream.identity!r}", (*path, "identity"))
    if upstream.minted_claims and upstream.identity != "minted":
        walk.fault((*path, "minted_claims"), f"is never used: identity is {upstream.identity!r}", (*path, "identity"))
    for index, claim in enumerate(upstream.minted_claims):
        if claim in _STATED_BY_GATEWAY:
            walk.fault((*path, "minted_claims", index), f"{claim!r} is stated by the gateway itself")
    seen: dict[str, str] = {}
    for name, source in upstream.identity_headers:
        entry = (*here, name)
        if not _header(name):
            meant = f"; did you mean {name.replace('_', '-')!r}?" if _header(name.replace("_", "-")) else ""
            walk.fault(entry, f"is no header name{meant}")
        elif name.lower() in _NOT_FOR_CLAIMS or (
            is_reserved(name.lower().encode(), frozenset()) and not name.lower().encode().startswith(_OURS)
        ):
            walk.fault(entry, "is a header that has a meaning of its own; choose another, such as X-User-Roles")
        elif name.lower() in seen:
            walk.fault(entry, f"is {seen[name.lower()]} again")
        seen.setdefault(name.lower(), name)
        try:
            bare = compile_expression(source, frozenset(("claims",))).path
        except ExpressionError as error:
            walk.fault(entry, f"{source!r}, {error}")
        else:
            if bare is None or len(bare) < 2:
                walk.fault(entry, f'{source!r} is no path to a claim, such as "claims.roles"')

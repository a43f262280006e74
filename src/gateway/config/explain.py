"""
What would become of a request, in words: which route, what it passes, where it goes, or why not.

Asks the same path and route tables as the gateway itself. Nothing is sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlsplit

from gateway.config.browser_sections import completed
from gateway.config.checks.routes import BUILT_IN, entries
from gateway.config.sections import Config, Route, Upstream
from gateway.config.units import format_duration, format_size
from gateway.core.path import Target, canonical
from gateway.core.problems import Problem
from gateway.core.routes import Entry, RouteTable
from gateway.core.template import REST, Wildcard, parse

__all__ = ["Explanation", "explain", "forwarded_path", "route_rows", "target_of"]

ITSELF: Final = "the gateway itself"


@dataclass(slots=True)
class Explanation:
    """
    Attributes:
        served: The request reaches a backend, if it brings what the route asks for.
        lines: What to tell, each a word for what it is about and a text.
    """

    served: bool = False
    lines: list[tuple[str, str]] = field(default_factory=list)

    def add(self, about: str, text: str) -> None:
        """Tell *text*."""
        self.lines.append((about, text))


def target_of(url: str) -> bytes:
    """
    Turn a URL, or a path with its query, into the request target that a client would send for it.
    """
    if not url.startswith("/"):
        parts = urlsplit(url)
        url = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    # A browser encodes what is not ASCII, and spaces; all else reaches the gateway as typed.
    return "".join(sign if "!" <= sign <= "~" else quote(sign) for sign in url).encode()


def explain(config: Config, method: str, url: str) -> Explanation:
    """
    Follow a request for *url* by *method* through *config*.
    """
    told = Explanation()
    try:
        target = canonical(target_of(url))
    except Problem as problem:
        told.add("refused", f"{problem.kind.status} {problem.kind.code} ({problem.reason}): {problem.detail}")
        return told
    told.add("path", target.path.decode("ascii"))
    table = RouteTable(_entries(config))
    try:
        match = table.match(target, method.encode("ascii", "replace"))
    except Problem as problem:
        _refused(told, problem, table, target, method)
        _unseen(told, config)
        return told
    if match.value is None:
        told.served = True
        told.add("route", f"{match.template}, answered by {ITSELF} to anybody")
        return told
    index = next(place for place, route in enumerate(config.route) if route is match.value)
    named = f" ({match.value.name})" if match.value.name is not None else ""
    told.add("route", f"route[{index}] {match.template}{named}")
    for name, value in match.params.items():
        told.add("variable", f"{name} = {value!r}")
    upstream = next(upstream for upstream in config.upstream if upstream.name == match.value.upstream)
    for text in _filters(config, match.value, upstream):
        told.add("filter", text)
    near = table.nearest(target, method.encode("ascii"), 4 + len(BUILT_IN))
    others = [(template, why) for template, why in near if template not in (match.template, *BUILT_IN)]
    for template, why in others[:3]:
        told.add("not", f"{template}: {why}")
    told.served = True
    _destination(told, match.value, upstream, method, target, config.auth.query)
    return told


def forwarded_path(path: bytes, strip_prefix: str | None) -> bytes:
    """
    Take *strip_prefix* off a canonical *path* that begins with it, segment by segment.
    """
    if strip_prefix is None:
        return path
    segments = path.split(b"/")
    return b"/" + b"/".join(segments[1 + strip_prefix.count("/") :])


def route_rows(config: Config) -> list[tuple[str, str, str, str, str]]:
    """
    List all routes, the most specific first: methods, path, auth, where it leads, rule.
    """
    rows = []
    for entry in _entries(config):
        route = entry.value
        methods = ",".join(sorted(method.decode() for method in entry.methods)) or "any"
        if route is None:
            row = (methods, entry.template, "none", ITSELF, "")
        else:
            row = (methods, entry.template, _auth_word(route), _leads_to(route), route.when or "")
        rows.append((_specificity(entry), row))
    listed = [row for _, row in sorted(rows)]
    listed += [
        ("-", "(by google.api.http)", _auth_word(route), _leads_to(route), route.when or "")
        for route in config.route
        if route.path is None
    ]
    return listed


def _entries(config: Config) -> list[Entry[Any]]:
    """Every route with a path, and the gateway's own with the value None."""
    return [*entries(config.route), *(Entry(path, frozenset((b"GET", b"HEAD")), None) for path in BUILT_IN)]


def _specificity(entry: Entry[Any]) -> tuple[list[tuple[int, str]], bool, bool, str]:
    template = parse(entry.template)
    ranks = [(2 if part is REST else 1, "") if isinstance(part, Wildcard) else (0, part) for part in template.parts]
    return ranks, not template.verb, not entry.methods, entry.template


def _auth_word(route: Route) -> str:
    if route.auth == "none":
        return "none"
    return f"required: {' '.join(route.scopes)}" if route.scopes else "required"


def _leads_to(route: Route) -> str:
    call = route.call or route.service
    return f"{route.upstream} {call}" if call else route.upstream


def _refused(told: Explanation, problem: Problem, table: RouteTable[Any], target: Target, method: str) -> None:
    code = problem.kind.code
    if code == "no_route":
        told.add("refused", "404 no_route: no route has this path")
    elif code == "method_not_allowed":
        allowed = dict(problem.headers).get(b"Allow", b"").decode()
        told.add("refused", f"405 method_not_allowed: {method} is not taken here; allowed: {allowed}")
    else:
        told.add("refused", f"{problem.kind.status} {code} ({problem.reason}): {problem.detail}")
    for template, why in table.nearest(target, method.encode("ascii", "replace")):
        told.add("nearest", f"{template}: {why}")


def _unseen(told: Explanation, config: Config) -> None:
    for index, route in enumerate(config.route):
        if route.path is None:
            told.add(
                "note", f"route[{index}] mounts the paths that {route.service} brings, which are not looked at here"
            )


def _filters(config: Config, route: Route, upstream: Upstream) -> Iterator[str]:
    """What ``node.filters`` does for this route, in its order."""
    proxies = config.listen.trusted_proxies
    behind = f", or X-Forwarded-For from {', '.join(map(str, proxies))}" if proxies else ""
    yield f"client address: the peer's{behind}"
    yield "trace: a request id and a trace context, new" + (" unless a trusted proxy brings them" if proxies else "")
    body = config.limits.max_body_bytes if route.max_body_bytes is None else route.max_body_bytes
    yield f"route: a body of at most {format_size(body)}"
    origins = completed(route.cors, config.cors).origins
    if origins:
        yield f"browsers: pages of {', '.join(origins)} may read answers; preflights are answered here"
    if route.auth == "none":
        yield 'credentials: none asked for (auth = "none"); the backend is told no identity'
    else:
        places = {
            "header": "Authorization: Bearer",
            "cookie": f"the cookie {config.auth.cookie}",
            "query": f"the query parameter {config.auth.query}, then removed",
        }
        wanted = " or ".join(places[place] for place in route.credentials if place in places)
        issuers = ", ".join(issuer.issuer for issuer in config.auth.issuer)
        ways = [f"a token from {issuers} in {wanted}"] if wanted else []
        ways += ["a client certificate"] if "certificate" in route.credentials else []
        yield f"credentials: {', or '.join(ways)}, else 401"
        if route.scopes:
            yield f"scopes: {' '.join(route.scopes)}, else 403"
    if route.when is not None:
        yield f"rule: {route.when}, else 403"
    timeout = upstream.timeout_s if route.timeout_s is None else route.timeout_s
    yield f"deadline: {format_duration(timeout)} until the answer's head, retries included, else 504"


def _destination(
    told: Explanation, route: Route, upstream: Upstream, method: str, target: Target, token: str | None
) -> None:
    if route.call is not None:
        told.add("upstream", f"{upstream.name} (gRPC)")
        for address in upstream.grpc:
            told.add("calls", f"{route.call} at {address}")
        for name, source in route.set:
            told.add("sets", f"{name} = {source}")
        return
    told.add("upstream", f"{upstream.name} ({upstream.balance})")
    path = forwarded_path(target.path, route.strip_prefix).decode("ascii")
    parts = target.query.decode("ascii").split("&") if target.query else []
    if "query" in route.credentials and token is not None:
        parts = [part for part in parts if part.partition("=")[0] != token]
    query = "?" + "&".join(parts) if parts else ""
    for address in upstream.http:
        told.add("forwards", f"{method} {address}{path}{query}")
    if route.auth != "none":
        told.add("identity", _identity(upstream))


def _identity(upstream: Upstream) -> str:
    if upstream.identity == "headers":
        return "in headers: " + ", ".join(["X-User-Id", *(name for name, _ in upstream.identity_headers)])
    return {"token": "the client's own token", "minted": "a fresh token signed by the gateway"}.get(
        upstream.identity, "not told"
    )

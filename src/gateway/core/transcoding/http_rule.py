"""
One way to reach a method over HTTP (google/api/http.proto), and reading it from an annotation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import MethodDescriptor

__all__ = ["BadRule", "HttpRule", "annotated", "place_of"]

_PATTERNS: Final = {"get": "GET", "put": "PUT", "post": "POST", "delete": "DELETE", "patch": "PATCH"}
_token = re.compile(r"[A-Z][A-Z0-9-]*").fullmatch


class BadRule(ValueError):
    """
    A rule that no request could follow, or that does not fit its method.

    Attributes:
        what: What is wrong, and what was meant.
        where: The part of the configuration, or the proto file and method.
    """

    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{where}: {what}")
        self.what = what
        self.where = where


@dataclass(frozen=True, slots=True)
class HttpRule:
    """
    A rule as written.

    Attributes:
        path: The template, see ``core.template``.
        methods: Upper-case; empty takes every method.
        body: ``*``, a field of the request, or empty: no body.
        response_body: A field of the response, or empty: all of it.
    """

    path: str
    methods: frozenset[bytes]
    body: str = ""
    response_body: str = ""


def place_of(method: MethodDescriptor) -> str:
    """
    Say where *method* is declared: ``demo/game.proto, demo.GameService/Sit``.
    """
    service = method.containing_service
    return f"{service.file.name}, {service.full_name}/{method.name}"


def annotated(method: MethodDescriptor) -> list[HttpRule]:
    """
    Read the ``google.api.http`` rules of *method*: the first, then its additional bindings; often none.

    Raises:
        BadRule: they are not in the grammar.
    """
    # In a pool of its own, or read before the extension was registered, it is among the unknown fields;
    # reading the options again with the class that knows it finds it wherever it is.
    options = descriptor_pb2.MethodOptions.FromString(method.GetOptions().SerializeToString())
    if not options.HasExtension(annotations_pb2.http):
        return []
    where = place_of(method)
    first = options.Extensions[annotations_pb2.http]
    rules = [_rule(first, where)]
    for other in first.additional_bindings:
        if other.additional_bindings:
            raise BadRule("an additional binding has additional bindings, and there is only one level", where)
        rules.append(_rule(other, where))
    return rules


def _rule(rule: http_pb2.HttpRule, where: str) -> HttpRule:
    pattern = rule.WhichOneof("pattern")
    if pattern is None:
        raise BadRule("google.api.http names no method and path", where)
    if pattern == "custom":
        path, kind = rule.custom.path, rule.custom.kind
        if kind != "*" and not _token(kind):
            raise BadRule(f"{kind!r} is no method of HTTP; write it in capitals, or * for all", where)
        methods = frozenset() if kind == "*" else frozenset((kind.encode(),))
    else:
        path, methods = getattr(rule, pattern), frozenset((_PATTERNS[pattern].encode(),))
    return HttpRule(path, methods, rule.body, rule.response_body)

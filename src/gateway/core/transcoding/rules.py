"""
From services and configuration to bindings: annotated methods, explicit mappings, calls without a path.
"""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from gateway.core.transcoding.binding import Binding, RequestOptions
from gateway.core.transcoding.codecs import Codecs
from gateway.core.transcoding.fields import BadPath, field_at
from gateway.core.transcoding.http_rule import BadRule, HttpRule, annotated, place_of

__all__ = ["BadRule", "direct", "mapped", "service_bindings"]


def service_bindings(
    service: ServiceDescriptor,
    codecs: Codecs,
    *,
    set_fields: Iterable[str] = (),
    options: RequestOptions | None = None,
    faults: list[BadRule] | None = None,
) -> list[Binding]:
    """
    Compile the ``google.api.http`` rules of all methods of *service* that have some.

    Args:
        set_fields: Filled in every method whose request has them; at least one must.
        faults: Receives every bad rule, which is then left out; without it the first is raised.

    Raises:
        BadRule: as said; also when no method is annotated.
    """
    collected: list[BadRule] = [] if faults is None else faults
    before = len(collected)
    wanted = tuple(set_fields)
    bindings: list[Binding] = []
    filled: set[str] = set()
    seen = False
    for method in service.methods:
        here = tuple(path for path in wanted if _has(method, path))
        filled.update(here)
        try:
            for rule in annotated(method):
                seen = True
                bindings.append(_bind(method, rule, codecs, here, options, frozenset(), place_of(method)))
        except BadRule as bad:
            seen = True
            collected.append(bad)
    where = f"{service.file.name}, {service.full_name}"
    if not seen:
        collected.append(
            BadRule("no method has a google.api.http rule; map each to a path of its own with call", where)
        )
    collected += [
        BadRule(f"set {path!r}: no request of the service has it", where) for path in wanted if path not in filled
    ]
    if faults is None and len(collected) > before:
        raise collected[before]
    return bindings


def mapped(
    method: MethodDescriptor,
    codecs: Codecs,
    *,
    path: str,
    methods: Iterable[str] = (),
    body: str = "",
    response_body: str = "",
    set_fields: Iterable[str] = (),
    unbound: Iterable[str] = (),
    options: RequestOptions | None = None,
    where: str = "",
) -> Binding:
    """
    Compile a mapping from the configuration.

    Args:
        methods: Upper-case; empty takes every method.
        unbound: Variables of *path* that need not be fields of the request.

    Raises:
        BadRule: it does not fit *method*.
    """
    rule = HttpRule(path, frozenset(name.encode() for name in methods), body, response_body)
    return _bind(method, rule, codecs, tuple(set_fields), options, frozenset(unbound), where)


def direct(
    method: MethodDescriptor,
    codecs: Codecs,
    *,
    set_fields: Iterable[str] = (),
    options: RequestOptions | None = None,
    where: str = "",
) -> Binding:
    """
    Compile a call that has no path: a command or a channel's rule, whose data is the whole request as JSON.

    ``message({}, b"", data, b"application/json", set_values)`` makes its message.

    Raises:
        BadRule: *set_fields* do not fit *method*.
    """
    return _bind(method, HttpRule("", frozenset(), "*"), codecs, tuple(set_fields), options, frozenset(), where)


def _bind(
    method: MethodDescriptor,
    rule: HttpRule,
    codecs: Codecs,
    set_fields: tuple[str, ...],
    options: RequestOptions | None,
    unbound: frozenset[str],
    where: str,
) -> Binding:
    options = options or RequestOptions()
    decoders = codecs.decoders(ignore_unknown=options.ignore_unknown_fields)
    binding = Binding(method, rule, decoders, set_fields=set_fields, options=options, unbound=unbound, where=where)
    name = rule.response_body
    if name and name not in method.output_type.fields_by_name:
        raise BadRule(f"response_body {name!r}: {method.output_type.full_name} has no such field", where)
    return binding


def _has(method: MethodDescriptor, path: str) -> bool:
    try:
        field_at(method.input_type, path)
    except BadPath:
        return False
    return True

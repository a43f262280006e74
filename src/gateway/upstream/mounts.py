"""
From gRPC routes of the configuration to the paths they are served at.

Impossible rules are refused here, with the route they stand in: at load, not at the first request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from google.protobuf.descriptor import MethodDescriptor

from gateway.config.expressions import Expression, ExpressionError, compile_expression
from gateway.config.sections import Route
from gateway.core.routes import Entry, RouteTable
from gateway.core.transcoding.binding import Binding, RequestOptions
from gateway.core.transcoding.encode import JsonStyle
from gateway.core.transcoding.fields import BadPath, field_at
from gateway.core.transcoding.respond import AnswerOptions, Responder
from gateway.core.transcoding.rules import BadRule, mapped, service_bindings
from gateway.upstream.descriptors import Schema, SchemaError

__all__ = ["Mount", "MountFault", "check_paths", "mounts_of"]


class MountFault(ValueError):
    """
    Routes that cannot be served; the text has one line for each fault.
    """

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))


@dataclass(frozen=True, slots=True)
class Mount:
    """
    One path of one gRPC route.

    Attributes:
        path: The template.
        methods: Upper-case; empty takes every method.
        name: For metrics and logs: the route's own name, else the call.
        values: Field to expression, for what the client can never set.
    """

    route: Route
    path: str
    methods: tuple[str, ...]
    name: str
    binding: Binding
    responder: Responder
    values: Mapping[str, Expression]
    schema: Schema


def mounts_of(routes: Iterable[Route], schemas: Mapping[str, Schema], roots: frozenset[str]) -> list[Mount]:
    """
    Compile every gRPC route.

    Args:
        schemas: By upstream name.
        roots: What the expressions of ``set`` may name.

    Raises:
        MountFault: with every fault.
    """
    mounts: list[Mount] = []
    faults: list[str] = []
    for number, route in enumerate(routes):
        if route.call is None and route.service is None:
            continue
        where = f"route[{number}]"
        schema = schemas.get(route.upstream)
        if schema is None:
            faults.append(f"{where}: upstream {route.upstream!r} has no descriptors: set descriptors or reflection")
            continue
        try:
            mounts += _mount(route, schema, roots, where, faults)
        except (SchemaError, BadRule, ExpressionError) as error:
            faults.append(f"{where}: {error}")
    if faults:
        raise MountFault(faults)
    return mounts


def check_paths(routes: Iterable[Route], mounts: Iterable[Mount]) -> None:
    """
    Look whether proxied and mounted paths can stand in one table.

    Raises:
        RouteConflict: two of them mean the same requests.
        BadTemplate: a path cannot be read.
    """
    RouteTable(
        [
            *(
                Entry(
                    mount.path,
                    frozenset(name.encode("ascii") for name in mount.methods),
                    mount.name,
                    encoded_slash=True,
                )
                for mount in mounts
            ),
            *(
                Entry(str(route.path), frozenset(name.encode("ascii") for name in route.methods), str(route.path))
                for route in routes
                if route.path is not None and route.call is None
            ),
        ]
    )


def _mount(route: Route, schema: Schema, roots: frozenset[str], where: str, faults: list[str]) -> list[Mount]:
    values = {name: compile_expression(source, roots) for name, source in route.set}
    options = RequestOptions(
        ignore_unknown_fields=route.json.ignore_unknown_fields,
        ignore_unknown_parameters=route.json.ignore_unknown_parameters,
        ignore_parameters=route.json.ignore_parameters,
    )
    if route.service is not None:
        bad: list[BadRule] = []
        bindings = service_bindings(
            schema.service(route.service), schema.codecs, set_fields=values, options=options, faults=bad
        )
        faults += [f"{where}: {fault}" for fault in bad]
    else:
        method = schema.method(str(route.call)).descriptor
        read = {
            expression.path[1]
            for expression in values.values()
            if expression.path and expression.path[0] == "path" and not _is_field(method, expression.path[1])
        }
        bindings = [
            mapped(
                method,
                schema.codecs,
                path=str(route.path),
                methods=route.methods,
                body=route.body or "",
                response_body=route.response_body,
                set_fields=values,
                unbound=read,
                options=options,
                where=where,
            )
        ]
    return [
        Mount(
            route,
            binding.rule.path,
            tuple(sorted(method.decode("ascii") for method in binding.rule.methods)),
            route.name or binding.call[1:],
            binding,
            _responder(route, binding, schema, where),
            {name: values[name] for name in binding.set_fields},
            schema,
        )
        for binding in bindings
    ]


def _is_field(method: MethodDescriptor, name: str) -> bool:
    try:
        field_at(method.input_type, name)
    except BadPath:
        return False
    return True


def _responder(route: Route, binding: Binding, schema: Schema, where: str) -> Responder:
    json, response = route.json, route.response
    style = JsonStyle(
        proto_names=json.proto_names,
        defaults=json.defaults,
        nulls=json.nulls,
        int64="number" if json.int64_numbers else "string",
        enum_numbers=json.enum_numbers,
    )
    try:
        statuses = {name: int(status) for name, status in response.statuses}
    except ValueError:
        raise BadRule("response.statuses: a status is a number from 400 to 599", where) from None
    answer = AnswerOptions(
        unwrap=response.unwrap,
        status=response.status,
        ok=response.ok,
        error=response.error,
        message=response.message,
        statuses=statuses,
    )
    return Responder(
        binding.method,
        schema.codecs,
        style,
        response_body=binding.rule.response_body,
        options=answer,
        where=where,
    )

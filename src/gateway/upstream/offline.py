"""
What gRPC routes mean, told without asking any backend: for ``gateway check``, ``explain`` and ``openapi``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from gateway.config.realtime_sections import BackendCall
from gateway.config.sections import Config, Upstream
from gateway.core.path import Target
from gateway.core.problems import Problem
from gateway.core.routes import Entry, RouteTable
from gateway.core.transcoding.encode import JsonStyle
from gateway.core.transcoding.openapi import Operation
from gateway.core.transcoding.rejection import Rejected
from gateway.upstream.asking import bound
from gateway.upstream.descriptors import Schema, SchemaError, event_schema, load_schema
from gateway.upstream.mounts import Mount, MountFault, check_paths, mounts_of

__all__ = ["explain_call", "faults_of", "file_schemas", "offline_mounts", "operations_of"]


def file_schemas(upstreams: Iterable[Upstream]) -> dict[str, Schema]:
    """
    Read the descriptor files that *upstreams* name; those that reflect instead are left out.

    Raises:
        MountFault: a file cannot be used.
    """
    schemas: dict[str, Schema] = {}
    faults: list[str] = []
    for upstream in upstreams:
        if upstream.grpc and upstream.descriptors is None and not upstream.reflection:
            schemas[upstream.name] = event_schema()
        elif upstream.grpc and upstream.descriptors is not None:
            try:
                schemas[upstream.name] = load_schema(upstream.descriptors)
            except SchemaError as error:
                faults.append(f"upstream.{upstream.name}.descriptors: {error}")
    if faults:
        raise MountFault(faults)
    return schemas


def offline_mounts(config: Config, roots: frozenset[str]) -> tuple[list[Mount], list[str]]:
    """
    Compile the gRPC routes whose descriptors stand in files.

    Returns:
        The mounts, and the upstreams that must be asked for their descriptors.

    Raises:
        MountFault: with every fault.
    """
    schemas = file_schemas(config.upstream)
    asked = [upstream.name for upstream in config.upstream if upstream.grpc and upstream.name not in schemas]
    routes = [route for route in config.route if route.upstream in schemas]
    return mounts_of(routes, schemas, roots), asked


def faults_of(config: Config, roots: frozenset[str]) -> list[str]:
    """
    List what is wrong with the gRPC routes, paths that collide included, and with the calls of channels and methods.
    """
    try:
        calls = _call_faults(config, file_schemas(config.upstream))
        mounts, _ = offline_mounts(config, roots)
        check_paths(config.route, mounts)
    except MountFault as fault:
        return list(fault.faults)
    except ValueError as error:
        return str(error).splitlines()
    return calls


def _call_faults(config: Config, schemas: Mapping[str, Schema]) -> list[str]:
    faults = []
    for where, section in _calls(config):
        schema = schemas.get(section.upstream)
        if section.call and schema is not None:
            try:
                bound(section, schema)
            except ValueError as error:
                faults.append(f"{where}: {error}")
    return faults


def _calls(config: Config) -> Iterator[tuple[str, BackendCall]]:
    """Every configured call, and where it stands."""
    for channel in config.channels:
        for key, section in (
            ("subscribe", channel.subscribe),
            ("publish", channel.publish),
            ("snapshot", channel.snapshot),
        ):
            if section is not None:
                yield f'channels."{channel.pattern}".{key}', section
    for method in config.rpc:
        yield f'rpc."{method.method}"', method
    for key in ("on_connect", "on_disconnect", "on_subscribe", "on_unsubscribe"):
        hook = getattr(config.realtime, key)
        if hook is not None:
            yield f"realtime.{key}", hook


def _methods(mount: Mount) -> frozenset[bytes]:
    return frozenset(method.encode("ascii") for method in mount.methods)


def operations_of(mounts: Iterable[Mount]) -> list[Operation]:
    """
    Turn *mounts* into what ``core.transcoding.openapi`` describes.
    """
    return [
        Operation(
            mount.binding,
            JsonStyle(
                proto_names=mount.route.json.proto_names,
                defaults=mount.route.json.defaults,
                nulls=mount.route.json.nulls,
                int64="number" if mount.route.json.int64_numbers else "string",
                enum_numbers=mount.route.json.enum_numbers,
            ),
            mount.route.response.status,
            mount.route.response.unwrap or mount.binding.rule.response_body,
            mount.route.auth == "required",
            mount.name,
        )
        for mount in mounts
    ]


def explain_call(
    mounts: Iterable[Mount], method: str, target: Target, body: bytes, claims: Mapping[str, object]
) -> list[tuple[str, str]]:
    """
    Tell which call a request becomes and with what message; empty if no gRPC route has it.

    Args:
        claims: Of the caller, for fields that the gateway fills.
    """
    table = RouteTable([Entry(mount.path, _methods(mount), mount, encoded_slash=True) for mount in mounts])
    try:
        match = table.match(target, method.encode("ascii", "replace"))
    except Problem:
        return []
    mount = match.value
    told = [("call", mount.binding.call[1:]), ("rule", f"{' '.join(mount.methods) or 'any method'} {mount.path}")]
    values: dict[str, object] = {}
    for name, expression in mount.values.items():
        told.append(("set", f"{name} = {expression.source}"))
        if expression.roots <= {"claims", "path"} and (claims or "claims" not in expression.roots):
            values[name] = expression.value({"claims": claims, "path": match.params})
        else:
            values[name] = None  # Only a real request has it.
    try:
        message = mount.binding.message(match.params, target.query, body, b"application/json" if body else b"", values)
    except Rejected as rejected:
        told += [("refused", f"{violation.path or 'body'}: {violation.message}") for violation in rejected.violations]
        return told
    except Problem as problem:
        told.append(("refused", f"{problem.kind.code}: {problem.detail}"))
        return told
    encode = mount.schema.codecs.encoders().json(mount.binding.method.input_type)
    told.append(("message", encode(message).decode()))
    return told

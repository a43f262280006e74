"""
OpenAPI 3.1 for everything that comes from protos: what can be asked, and what comes back.

It describes what the bindings do, strictly: a field that the gateway fills is in no request, an
unknown member is not allowed where it is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.core.template import STAR, Template
from gateway.core.transcoding.binding import Binding
from gateway.core.transcoding.encode import JsonStyle
from gateway.core.transcoding.fields import HTTP_BODY, LEAVES, WELL_KNOWN, field_at, is_map
from gateway.core.transcoding.schemas import Schemas, field_schema, leaf_schema

__all__ = ["Operation", "openapi"]

_PROBLEM: Final = {
    "type": "object",
    "description": "RFC 9457; docs/errors.md lists every code.",
    "required": ["type", "title", "status", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "retriable": {"type": "boolean"},
        "detail": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}
_DEEPEST_QUERY: Final = 2
_WITH_BODY: Final = frozenset(("POST", "PUT", "PATCH", "DELETE"))


@dataclass(frozen=True, slots=True)
class Operation:
    """
    One path of one gRPC route.

    Attributes:
        style: How answers are written.
        status: Of a success.
        sent: Path of the field that alone is sent; empty sends the message.
        auth: A token is required.
        name: Of the route.
    """

    binding: Binding
    style: JsonStyle
    status: int
    sent: str
    auth: bool
    name: str


def openapi(operations: Iterable[Operation], *, title: str, version: str) -> dict[str, Any]:
    """
    Describe *operations* as one document, ready for JSON.
    """
    schemas = Schemas()
    paths: dict[str, dict[str, Any]] = {}
    used: set[str] = set()
    for operation in operations:
        binding = operation.binding
        if binding.template is None:
            continue
        path = paths.setdefault(_path(binding.template), {})
        methods = sorted(method.decode("ascii") for method in binding.rule.methods)
        for method in methods or (["POST"] if binding.takes_body else ["GET"]):
            path[method.lower()] = _operation(operation, method, schemas, used)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {
            "schemas": {"Problem": _PROBLEM, **schemas.made},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def _path(template: Template) -> str:
    """The template as OpenAPI has it: each variable is one parameter, also one of several segments."""
    pieces: list[str] = []
    at = 0
    starts = {variable.start: variable for variable in template.variables}
    while at < len(template.parts):
        variable = starts.get(at)
        if variable is not None:
            pieces.append(f"{{{variable.name}}}")
            at = variable.stop if variable.stop is not None else len(template.parts)
            continue
        part = template.parts[at]
        pieces.append(part if isinstance(part, str) else f"{{segment_{at}}}")
        at += 1
    return "/" + "/".join(pieces) + (f":{template.verb}" if template.verb else "")


def _operation(operation: Operation, method: str, schemas: Schemas, used: set[str]) -> dict[str, Any]:
    binding = operation.binding
    service, _, name = binding.call[1:].rpartition("/")
    identifier = base = f"{service.rpartition('.')[2]}_{name}"
    number = 1
    while identifier in used:
        number += 1
        identifier = f"{base}_{number}"
    used.add(identifier)
    described: dict[str, Any] = {
        "operationId": identifier,
        "summary": f"{binding.call[1:]}",
        "tags": [service],
        "parameters": _parameters(binding, schemas),
        "responses": _responses(operation, schemas),
    }
    if operation.auth:
        described["security"] = [{"token": []}]
    if binding.takes_body and method in _WITH_BODY:
        described["requestBody"] = _body(binding, schemas)
    return described


def _bound(binding: Binding) -> dict[str, Any]:
    template = binding.template
    return {variable.name: variable for variable in template.variables} if template is not None else {}


def _parameters(binding: Binding, schemas: Schemas) -> list[dict[str, Any]]:
    template = binding.template
    descriptor: Descriptor = binding.method.input_type
    parameters: list[dict[str, Any]] = []
    for variable in template.variables if template is not None else ():
        try:
            _, field = field_at(descriptor, variable.name)
            schema = leaf_schema(field, schemas, text=True)
        except ValueError:
            schema = {"type": "string"}
        if schema.get("type") == "string" and "enum" not in schema:
            schema = {**schema, "minLength": 1}
        parameters.append({"name": variable.name, "in": "path", "required": True, "schema": schema})
    if template is not None:
        captured = {
            at
            for variable in template.variables
            for at in range(variable.start, variable.stop if variable.stop is not None else len(template.parts))
        }
        parameters += [
            {"name": f"segment_{at}", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for at, part in enumerate(template.parts)
            if part is STAR and at not in captured
        ]
    if binding.rule.body != "*":
        closed = {*binding.set_fields, *_bound(binding)}
        if binding.rule.body:
            closed.add(binding.rule.body)
        parameters += _query(descriptor, "", closed, schemas, 0)
    return parameters


def _query(descriptor: Descriptor, prefix: str, closed: set[str], schemas: Schemas, depth: int) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = []
    for field in descriptor.fields:
        path = f"{prefix}{field.name}"
        if path in closed or is_map(field):
            continue
        inner = field.message_type
        if inner is not None and inner.full_name not in LEAVES:
            if not field.is_repeated and inner.full_name not in WELL_KNOWN and depth < _DEEPEST_QUERY:
                parameters += _query(inner, f"{path}.", closed, schemas, depth + 1)
            continue
        schema = leaf_schema(field, schemas, text=True)
        if field.is_repeated:
            schema = {"type": "array", "items": schema}
        parameters.append({"name": path, "in": "query", "required": False, "schema": schema, "explode": True})
    return parameters


def _body(binding: Binding, schemas: Schemas) -> dict[str, Any]:
    if binding.raw_body:
        return {"required": False, "content": {"*/*": {"schema": {}}}}
    descriptor: Descriptor = binding.method.input_type
    if binding.rule.body == "*":
        closed = frozenset((*binding.set_fields, *_bound(binding)))
        schema = schemas.request(descriptor, closed, strict=not binding.options.ignore_unknown_fields)
    else:
        _, field = field_at(descriptor, binding.rule.body)
        schema = field_schema(field, schemas, JsonStyle(), request=True)
    return {"required": False, "content": {"application/json": {"schema": schema}}}


def _responses(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    problem = {
        "description": "Refused or failed.",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    return {str(operation.status): _success(operation, schemas), "default": problem}


def _success(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    if operation.status in (204, 205):
        return {"description": "Done."}
    output: Descriptor = operation.binding.method.output_type
    field: FieldDescriptor | None = field_at(output, operation.sent)[1] if operation.sent else None
    message = output if field is None else field.message_type
    if message is not None and message.full_name == HTTP_BODY and (field is None or not field.is_repeated):
        return {"description": "Bytes of a type of their own.", "content": {"*/*": {"schema": {}}}}
    if field is None:
        schema: Mapping[str, Any] = schemas.response(output, operation.style)
    else:
        schema = field_schema(field, schemas, operation.style, request=False)
    if operation.binding.method.server_streaming:
        return {
            "description": "A stream: lines, events, or an array, by Accept.",
            "content": {
                "application/json": {"schema": {"type": "array", "items": schema}},
                "application/x-ndjson": {"schema": {"type": "string"}},
                "text/event-stream": {"schema": {"type": "string"}},
            },
        }
    return {"description": "The reply.", "content": {"application/json": {"schema": schema}}}

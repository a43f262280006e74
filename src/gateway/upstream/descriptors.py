"""
What a gRPC backend can be asked: its services and messages, from a descriptor set and without generated code.

Every backend has a pool of its own, so that two backends may have different versions of one type.
Files that nearly every proto imports and descriptor sets often lack (``google/protobuf/*``,
``google/api/*``, ``google/rpc/*``) are added from the installed libraries.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Final

# Imported so that their files can be added to a pool that refers to them.
from google.api import annotations_pb2, httpbody_pb2  # noqa: F401
from google.protobuf import (  # noqa: F401
    any_pb2,
    descriptor_pb2,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pool import Default, DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2  # noqa: F401

from gateway.core.transcoding.codecs import Codecs
from gateway.protos.event.v1 import events_pb2

__all__ = ["Method", "Schema", "SchemaError", "event_schema", "load_schema", "schema_from_files", "schema_from_set"]

_DEEPEST_IMPORT: Final = 200


class SchemaError(ValueError):
    """
    Descriptors cannot be used, or do not have what is asked for. The text is for an operator.
    """


@dataclass(frozen=True, slots=True)
class Method:
    """
    A method that can be called.

    Attributes:
        descriptor: Its types, streams and options.
        path: ``/pkg.Service/Method``, as gRPC sends it.
        request: Class of the message that it takes.
        response: Class of the message, or messages, that it gives.
    """

    descriptor: MethodDescriptor
    path: str
    request: type[Message]
    response: type[Message]


class Schema:
    """
    The services of one backend.

    Attributes:
        pool: All types.
        services: By full name, sorted.
        codecs: What transcoding compiles from the types.
    """

    def __init__(self, pool: DescriptorPool, services: Iterable[ServiceDescriptor]) -> None:
        self.pool = pool
        self.services: dict[str, ServiceDescriptor] = {
            service.full_name: service for service in sorted(services, key=lambda service: str(service.full_name))
        }
        self.codecs = Codecs(pool)

    def service(self, name: str) -> ServiceDescriptor:
        """
        Find the service *name*, ``pkg.Service``.

        Raises:
            SchemaError: there is none.
        """
        found = self.services.get(name)
        if found is None:
            raise SchemaError(f"there is no service {name!r}{_meant(name, self.services)}")
        return found

    def method(self, name: str) -> Method:
        """
        Find the method *name*, ``pkg.Service/Method``.

        Raises:
            SchemaError: there is none.
        """
        service_name, slash, method_name = name.removeprefix("/").partition("/")
        if not slash:
            raise SchemaError(f"{name!r} is no method; expected package.Service/Method")
        methods = self.service(service_name).methods_by_name
        found: MethodDescriptor | None = methods.get(method_name)
        if found is None:
            raise SchemaError(f"{service_name} has no method {method_name!r}{_meant(method_name, methods)}")
        return Method(
            found,
            f"/{service_name}/{found.name}",
            GetMessageClass(found.input_type),
            GetMessageClass(found.output_type),
        )


def load_schema(path: Path) -> Schema:
    """
    Read the descriptor set in the file at *path* (``protoc --include_imports --descriptor_set_out``).

    Blocks for the disk: for start and reload.

    Raises:
        SchemaError: it cannot be read, is none, or is not complete.
    """
    try:
        serialized = path.read_bytes()
    except OSError as error:
        raise SchemaError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return schema_from_set(serialized)
    except SchemaError as error:
        raise SchemaError(f"{path}: {error}") from error


def schema_from_set(serialized: bytes) -> Schema:
    """
    Make the schema of a serialised ``FileDescriptorSet``.

    Raises:
        SchemaError: it is none, or is not complete.
    """
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(serialized).file
    except DecodeError:
        raise SchemaError("this is no descriptor set") from None
    return _schema({file.name: file for file in files})


def schema_from_files(files: Iterable[bytes]) -> Schema:
    """
    Make the schema of serialised ``FileDescriptorProto``s in any order, as server reflection sends them.

    Raises:
        SchemaError: one is none, or one is missing.
    """
    found = {}
    for serialized in files:
        try:
            file = descriptor_pb2.FileDescriptorProto.FromString(serialized)
        except DecodeError:
            raise SchemaError("this is no file descriptor") from None
        found[file.name] = file
    return _schema(found)


@cache
def event_schema() -> Schema:
    """
    Make the schema of the gateway's own ``event.v1``: for upstreams that name no descriptors.
    """
    return schema_from_files([events_pb2.DESCRIPTOR.serialized_pb])


def _schema(files: dict[str, descriptor_pb2.FileDescriptorProto]) -> Schema:
    if not any(file.service for file in files.values()):
        raise SchemaError("there is no service in it")
    pool = DescriptorPool()
    added: set[str] = set()
    for name in files:
        _add(name, files, pool, added, ())
    services = [
        pool.FindServiceByName(f"{file.package}.{service.name}" if file.package else service.name)
        for file in files.values()
        for service in file.service
    ]
    return Schema(pool, services)


def _add(
    name: str,
    files: dict[str, descriptor_pb2.FileDescriptorProto],
    pool: DescriptorPool,
    added: set[str],
    importers: tuple[str, ...],
) -> None:
    """Add the file *name*, after all that it imports."""
    if name in added:
        return
    if len(importers) > _DEEPEST_IMPORT:
        raise SchemaError(f"{importers[0]} imports through more than {_DEEPEST_IMPORT} files")
    if name in importers:
        raise SchemaError(f"{' imports '.join([*importers, name])}")
    file = files.get(name) or _installed(name, importers)
    for dependency in file.dependency:
        _add(dependency, files, pool, added, (*importers, name))
    try:
        pool.AddSerializedFile(file.SerializeToString())
    except TypeError as error:
        raise SchemaError(f"{name} is not valid: {error}") from error
    added.add(name)


def _installed(name: str, importers: tuple[str, ...]) -> descriptor_pb2.FileDescriptorProto:
    if name.startswith(("google/protobuf/", "google/api/", "google/rpc/")):
        try:
            return descriptor_pb2.FileDescriptorProto.FromString(Default().FindFileByName(name).serialized_pb)
        except KeyError:
            pass
    raise SchemaError(f"{importers[-1]} imports {name}, which is missing: make the set with --include_imports")


def _meant(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), 1, 0.5)
    return f"; did you mean {close[0]!r}?" if close else ""

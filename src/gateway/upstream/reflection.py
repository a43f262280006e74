"""
Asking a backend what it serves (grpc.reflection.v1alpha). Blocking: for a thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

__all__ = ["reflect"]

_OWN = ("grpc.reflection.", "grpc.health.")


def reflect(channel: Any, timeout_s: float) -> list[bytes]:
    """
    List the files of every service behind *channel*, and all that they import, serialised.

    Raises:
        grpc.RpcError: it is not answered within *timeout_s* seconds, or not served.
    """
    asked: SimpleQueue[Any] = SimpleQueue()

    def requests() -> Iterator[Any]:
        while (request := asked.get()) is not None:
            yield request

    answers = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(requests(), timeout=timeout_s)
    files: dict[str, bytes] = {}
    try:

        def ask(**what: str) -> Any:
            asked.put(reflection_pb2.ServerReflectionRequest(**what))
            return next(answers)

        services = [
            service.name
            for service in ask(list_services="").list_services_response.service
            if not service.name.startswith(_OWN)
        ]
        missing: list[str] = []
        for service in services:
            missing += _keep(ask(file_containing_symbol=service), files)
        while missing:
            name = missing.pop()
            if name not in files:
                missing += _keep(ask(file_by_filename=name), files)
    finally:
        asked.put(None)
        answers.cancel()
    return list(files.values())


def _keep(answer: Any, files: dict[str, bytes]) -> list[str]:
    """Keep the files of *answer*; return what they import."""
    imports: list[str] = []
    for serialized in answer.file_descriptor_response.file_descriptor_proto:
        file = FileDescriptorProto.FromString(serialized)
        files[file.name] = serialized
        imports += file.dependency
    return imports

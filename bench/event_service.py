"""
An Event Service that writes down whatever it is told, also what it was told before: one line of JSON for each event.

``python -m bench.event_service PORT FILE``; a process of its own, so that it can be killed.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict

from gateway.protos.event.v1 import events_pb2, events_pb2_grpc

__all__ = ["Recorder", "serve"]


class Recorder(events_pb2_grpc.EventServiceServicer):
    """
    Keeps all that comes.

    Attributes:
        calls: Metadata of each call.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")
        self._lock = threading.Lock()
        self.calls: list[dict[str, Any]] = []

    def PublishEvents(self, request: Any, context: Any) -> Any:  # noqa: N802  # as gRPC has it
        """Write the events down, then take them."""
        self.calls.append(dict(context.invocation_metadata()))
        lines = [
            json.dumps({**MessageToDict(event, preserving_proto_field_name=True), "told": time.time()})
            for event in request.events
        ]
        with self._lock:
            self._file.write("\n".join([*lines, ""]))
            self._file.flush()
        return events_pb2.PublishEventsResponse()


def serve(port: int, recorder: Recorder) -> Any:
    """
    Start a server on loopback.
    """
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    events_pb2_grpc.add_EventServiceServicer_to_server(recorder, server)  # type: ignore[no-untyped-call]  # generated
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server


if __name__ == "__main__":
    serve(int(sys.argv[1]), Recorder(Path(sys.argv[2]))).wait_for_termination()

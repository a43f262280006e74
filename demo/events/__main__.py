"""
``python -m demo.events --port 7200 --page-port 7201 --db FILE``: serve until TERM or Ctrl-C.
"""

from __future__ import annotations

import argparse
import signal
import sqlite3
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from demo.events.page import PageServer
from demo.events.service import SERVICE, EventService
from demo.events.store import SessionTable
from gateway.protos.event.v1 import events_pb2_grpc

THREADS = 8
GRACE_S = 1.0


def main() -> int:
    """
    Serve; return the exit code.
    """
    parser = argparse.ArgumentParser(prog="demo.events", description="Sessions, as the gateway tells of them.")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=7200, help="for gRPC; 0: any that is free")
    parser.add_argument("--page-port", type=int, default=7201, help="for the page; 0: any that is free")
    parser.add_argument("--db", type=Path, default=Path("events.sqlite3"), help="the database file")
    options = parser.parse_args()

    def log(line: str) -> None:
        print(line, flush=True)

    try:
        table = SessionTable(options.db)
    except sqlite3.Error as error:
        print(f"events: {options.db}: {error}", file=sys.stderr)
        return 1
    try:
        page = PageServer(options.host, options.page_port, table)
    except OSError as error:
        print(f"events: port {options.page_port} of {options.host}: {error.strerror}", file=sys.stderr)
        return 1
    # Without so_reuseport a second process on the port would share its calls instead of failing.
    server = grpc.server(ThreadPoolExecutor(THREADS), options=[("grpc.so_reuseport", 0)])
    events_pb2_grpc.add_EventServiceServicer_to_server(EventService(table, log), server)  # type: ignore[no-untyped-call]  # generated
    checks = health.HealthServicer()
    checks.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        port = server.add_insecure_port(f"{options.host}:{options.port}")
    except RuntimeError:
        port = 0
    if not port:
        print(f"events: port {options.port} of {options.host} cannot be listened on", file=sys.stderr)
        return 1
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stopping.set())
    server.start()
    threading.Thread(target=page.serve_forever, name="page", daemon=True).start()
    log(
        f"events: listening on {options.host}:{port}, page on http://{options.host}:{page.server_address[1]}, in {options.db}"
    )
    stopping.wait()
    page.shutdown()
    server.stop(GRACE_S).wait()
    table.close()
    log("events: stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""
``python -m demo.game --port 7100``: the game as a process of its own, until TERM or Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from demo.game.publisher import Publisher
from demo.game.service import DOMAIN, GameService, game_pb2_grpc, shown
from demo.game.tables import Tables

THREADS = 64
GRACE_S = 1.0
KEY = "demo-only-game-key"


def main() -> int:
    """
    Serve; return the exit code.
    """
    parser = argparse.ArgumentParser(prog="demo.game", description="Connect Four tables behind gRPC.")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=7100)
    parser.add_argument(
        "--gateway",
        default="",
        help="HOST:PORT of its server API, to publish tables through; of several instances, with commas between",
    )
    options = parser.parse_args()

    def log(line: str) -> None:
        print(line, flush=True)

    # Without so_reuseport a second process on the port would share its calls instead of failing.
    server = grpc.server(ThreadPoolExecutor(THREADS), options=[("grpc.so_reuseport", 0)])
    tables = Tables()
    publisher: Publisher | None = None
    if options.gateway:
        publisher = Publisher(options.gateway.split(","), os.environ.get("GAME_KEY", KEY), log)
        tell = publisher.tell
        tables.watch(lambda table: tell(shown(table), tables.version))
        publisher.start()
    game_pb2_grpc.add_GameServiceServicer_to_server(GameService(tables, log), server)
    checks = health.HealthServicer()
    checks.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    service = f"{DOMAIN}.GameService"
    reflection.enable_server_reflection((service, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        port = server.add_insecure_port(f"{options.host}:{options.port}")
    except RuntimeError:
        port = 0
    if not port:
        print(f"game: port {options.port} of {options.host} cannot be listened on", file=sys.stderr)
        return 1
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stopping.set())
    server.start()
    log(f"game: listening on {options.host}:{port}")
    stopping.wait()
    server.stop(GRACE_S).wait()
    if publisher is not None:
        publisher.stop()
    log("game: stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""
``python -m demo.players --port 7001 --db FILE``: serve until SIGINT or SIGTERM.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from twisted.web.server import Site

from demo.players.resources import players_site
from demo.players.store import Profiles


class LoggingSite(Site):
    """Says for each request what was asked, by whom, and what was answered."""

    def log(self, request: Any) -> None:
        """Print the line; whoever is asked nothing prints nothing."""
        user = request.getHeader("x-user-id") or "nobody"
        method, uri = request.method.decode("latin-1"), request.uri.decode("latin-1")
        print(f"players: {method} {uri} for {user}: {request.code}, {request.sentLength} bytes", flush=True)


def main() -> int:
    """
    Serve; return the exit code.
    """
    parser = argparse.ArgumentParser(prog="demo.players", description="Players' profiles over HTTP.")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=7001, help="0: any that is free")
    parser.add_argument("--db", type=Path, default=Path("players.sqlite3"), help="the database file")
    options = parser.parse_args()

    reactor: Any = global_reactor
    failed: list[str] = []
    threads = ThreadPool(1, 1, name="profiles")
    try:
        profiles = Profiles(options.db)
    except sqlite3.Error as error:
        print(f"players: {options.db}: {error}", file=sys.stderr)
        return 1
    site = LoggingSite(players_site(reactor, profiles, threads))

    def listening(port: Any) -> None:
        print(f"players: listening on {options.host}:{port.getHost().port}, profiles in {options.db}", flush=True)

    def cannot(failure: Failure) -> None:
        error = failure.value
        failed.append(str(error.socketError) if isinstance(error, CannotListenError) else str(error))
        reactor.stop()

    def start() -> None:
        threads.start()
        endpoint = TCP4ServerEndpoint(reactor, options.port, backlog=4096, interface=options.host)
        endpoint.listen(site).addCallbacks(listening, cannot)

    reactor.callWhenRunning(start)
    reactor.addSystemEventTrigger("after", "shutdown", threads.stop)
    reactor.run()
    profiles.close()
    if failed:
        print(f"players: port {options.port}: {failed[0]}", file=sys.stderr)
        return 1
    print("players: stopped", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

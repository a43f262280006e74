"""
Autobahn as it is shipped: what comes on /pub goes to all on /sub by sendMessage, everything else comes back.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import epollreactor

epollreactor.install()

from autobahn.twisted import websocket as autobahn  # noqa: E402
from twisted.internet import reactor as installed  # noqa: E402

reactor: Any = installed
subscribers: set[Any] = set()
Base: Any = autobahn.WebSocketServerProtocol


class Peer(Base):  # type: ignore[misc]  # not typed
    """One connection."""

    def onConnect(self, request: Any) -> None:
        """Remember what it is."""
        self.path = request.path

    def onOpen(self) -> None:
        """Subscribe it."""
        if self.path == "/sub":
            subscribers.add(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Send it on, or back."""
        for receiver in subscribers if self.path == "/pub" else (self,):
            receiver.sendMessage(payload, isBinary)

    def onClose(self, *_: Any) -> None:
        """Forget it."""
        subscribers.discard(self)


def main() -> None:
    """Serve."""
    make: Any = autobahn.WebSocketServerFactory
    factory = make()
    factory.protocol = Peer
    factory.setProtocolOptions(tcpNoDelay=True)
    reactor.listenTCP(int(sys.argv[1]), factory, backlog=4096, interface="127.0.0.1")
    reactor.run()


main()

"""
The console over telnet: on loopback or a unix socket, by password, never with Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.conch.insults.insults import ServerProtocol
from twisted.conch.telnet import (
    ECHO,
    IP,
    LINEMODE,
    NAWS,
    SGA,
    StatefulTelnetProtocol,
    TelnetBootstrapProtocol,
    TelnetTransport,
)
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from gateway.console.desk import Caller, Desk
from gateway.console.doorkeeper import MOST_INSIDE, Doorkeeper
from gateway.console.flow import Flow
from gateway.console.terminal import CTRL_C, Terminal

__all__ = ["TelnetConsole"]

LOGIN_S: Final = 30.0
MOST_TRIES: Final = 3


class TelnetConsole(Factory):
    """
    The door over telnet.
    """

    noisy = False

    def __init__(self, reactor: Any, desk: Desk, keeper: Doorkeeper, *, idle_s: Callable[[], float]) -> None:
        self.reactor = reactor
        self.desk = desk
        self.keeper = keeper
        self.idle_s = idle_s
        self.open: set[_Login] = set()

    def buildProtocol(self, addr: Any) -> Any:
        """Let somebody stand at the door, unless too many do."""
        if len(self.open) >= 2 * MOST_INSIDE:
            return None
        return TelnetTransport(_Login, self, getattr(addr, "host", None) or "unix")

    def close(self) -> None:
        """
        Put everybody out.
        """
        for login in list(self.open):
            login.abort()


class _Login(StatefulTelnetProtocol):
    state = "User"
    MAX_LENGTH = 1024

    def __init__(self, console: TelnetConsole, peer: str) -> None:
        self._console = console
        self._peer = peer
        self._name = ""
        self._tries = 0
        self._looking: Deferred[Any] | None = None
        self._inside: _Bootstrap | None = None
        self._caller: Caller | None = None

    def connectionMade(self) -> None:
        self._console.open.add(self)
        self._came_at = self._console.reactor.seconds()
        self._timer = self._console.reactor.callLater(LOGIN_S, self.abort)
        self.transport.write(b"Username: ")

    def abort(self) -> None:
        """Put it out."""
        self.transport.transport.abortConnection()

    def telnet_User(self, line: bytes) -> str:
        self._name = line.decode("utf-8", "replace").strip()
        # Not every client answers, and none need: what follows is not shown by those that do.
        self.transport.will(ECHO).addErrback(lambda _: None)
        self.transport.write(b"Password: ")
        return "Password"

    def telnet_Password(self, line: bytes) -> str:
        console = self._console
        password = line.decode("utf-8", "replace")
        looking = console.keeper.password(self._name, password, "telnet", self._peer)
        self._looking = Deferred.fromCoroutine(looking)
        self._looking.addCallbacks(self._looked, self._failed)
        return "Discard"

    def telnet_Discard(self, _line: bytes) -> None:
        """Wait for the answer."""

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._console.desk.broke(failure)
            self.abort()

    def _looked(self, right: bool) -> None:
        console = self._console
        if right and not console.keeper.full:
            self._come_in()
            return
        self._tries += 1
        if self._tries >= MOST_TRIES:
            self.transport.loseConnection()
            return
        self.transport.write(b"\nNot so.\nUsername: ")
        self.state = "User"

    def _come_in(self) -> None:
        console = self._console
        caller = self._caller = console.keeper.caller(self._name, "telnet", self._peer, with_key=False)
        console.keeper.came(caller, "password")
        self._timer.cancel()
        self.state = "Discard"
        flow = Flow()
        self.transport.transport.registerProducer(flow, True)
        self._inside = _Bootstrap(
            ServerProtocol, Terminal, console.reactor, console.desk, caller, flow, idle_s=console.idle_s()
        )
        self._inside.makeConnection(self.transport)
        self.transport.write(b"\n")
        # What comes from here on is the terminal's; that it ends comes here.
        self.dataReceived = self._inside.dataReceived
        self.enableLocal = self._inside.enableLocal
        self.enableRemote = self._inside.enableRemote

    def connectionLost(self, reason: Failure) -> None:
        self._console.open.discard(self)
        if self._timer.active():
            self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()
        super().connectionLost(reason)
        inside, self._inside = self._inside, None
        if inside is not None:
            inside.connectionLost(reason)
        if self._caller is not None:
            self._console.keeper.went(self._caller, self._console.reactor.seconds() - self._came_at)

    def enableLocal(self, option: bytes) -> bool:
        return option in (ECHO, SGA)

    def enableRemote(self, _option: bytes) -> bool:
        return False

    def disableLocal(self, _option: bytes) -> None:
        """It may show what it likes."""

    def disableRemote(self, _option: bytes) -> None:
        """Likewise."""


class _Bootstrap(TelnetBootstrapProtocol):
    def connectionMade(self) -> None:
        transport = self.transport
        transport.negotiationMap[NAWS] = self.telnet_NAWS
        transport.negotiationMap[LINEMODE] = self.telnet_LINEMODE
        transport.commandMap[IP] = lambda _: self.protocol.terminalProtocol.keystrokeReceived(CTRL_C, None)
        self.protocol = self.protocolFactory(*self.protocolArgs, **self.protocolKwArgs)
        self.protocol.makeConnection(self)
        for option in (LINEMODE, NAWS, SGA):
            transport.do(option).addErrback(lambda _: None)

    def telnet_LINEMODE(self, _data: Any) -> None:
        """Keys come one by one, or they do not."""

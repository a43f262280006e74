"""
The console over ssh: keys or passwords, a terminal, or one command (``ssh -p 4022 anna@host who alice``).

Nothing else that ssh can do is done: no forwarding, no subsystems, no environment.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

import msgspec
from twisted.conch.avatar import ConchUser
from twisted.conch.error import ConchError, ValidPublicKey
from twisted.conch.insults.insults import ServerProtocol
from twisted.conch.interfaces import IConchUser
from twisted.conch.ssh.channel import SSHChannel
from twisted.conch.ssh.common import getNS
from twisted.conch.ssh.connection import SSHConnection
from twisted.conch.ssh.factory import SSHFactory
from twisted.conch.ssh.keys import BadKeyError, Key
from twisted.conch.ssh.session import parseRequest_pty_req, parseRequest_window_change
from twisted.conch.ssh.transport import SSHServerTransport
from twisted.conch.ssh.userauth import SSHUserAuthServer
from twisted.cred.credentials import ISSHPrivateKey, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogEvent, Logger, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import provider

from gateway.console.desk import Caller, Desk
from gateway.console.doorkeeper import MOST_INSIDE, Doorkeeper
from gateway.console.flow import Flow
from gateway.console.python import Python
from gateway.console.terminal import Terminal
from gateway.console.text import lines
from gateway.console.told import Refusal
from gateway.console.verb import split

__all__ = ["SshConsole"]

LOGIN_S: Final = 30.0
MOST_CHANNELS: Final = 4
MOST_TRIES: Final = 6
JSON: Final = "--json"


@provider(ILogObserver)
def _failures(event: LogEvent) -> None:
    """Of what conch says of each step of each connection only what failed here is worth a line."""
    if event.get("log_failure") is not None:
        globalLogPublisher(event)


_quiet: Final = Logger(observer=_failures)


class SshConsole(SSHFactory):
    """
    The door over ssh.

    Args:
        namespace: What a developer's Python prompt knows; None: there is no such prompt.
    """

    noisy = False
    _log = _quiet

    def __init__(
        self,
        reactor: Any,
        desk: Desk,
        keeper: Doorkeeper,
        key: Key,
        *,
        idle_s: Callable[[], float],
        namespace: Callable[[], dict[str, Any] | None],
    ) -> None:
        self.reactor = reactor
        self.desk = desk
        self.keeper = keeper
        self.idle_s = idle_s
        self.namespace = namespace
        self.publicKeys = {b"ssh-ed25519": key.public()}
        self.privateKeys = {b"ssh-ed25519": key}
        self.primes = None
        self.portal = _Portal()
        self.protocol = _Transport
        self.services = {b"ssh-userauth": _Auth, b"ssh-connection": _Connection}
        self.open: set[_Transport] = set()

    def buildProtocol(self, addr: Any) -> Any:
        """Let somebody stand at the door, unless too many do."""
        return super().buildProtocol(addr) if len(self.open) < 2 * MOST_INSIDE else None

    def close(self) -> None:
        """
        Put everybody out.
        """
        for transport in list(self.open):
            transport.transport.abortConnection()


class _Transport(SSHServerTransport):
    _log = _quiet
    ourVersionString = b"SSH-2.0-gateway"
    caller: Caller | None = None
    gone = False

    def connectionMade(self) -> None:
        self.factory.open.add(self)
        self.peer = getattr(self.transport.getPeer(), "host", None) or "unix"
        self.offered = ""
        self._came_at = self.factory.reactor.seconds()
        # Whoever says nothing at all never comes as far as the time-out of logins.
        self._timer = self.factory.reactor.callLater(LOGIN_S, self._late)
        super().connectionMade()

    def _late(self) -> None:
        self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        if self.caller is not None and self._timer.active():
            self._timer.reset(self.factory.idle_s() + 1.0)
        super().dataReceived(data)

    def came(self, caller: Caller, method: str) -> None:
        """Somebody has proved who it is."""
        self.caller = caller
        self.factory.keeper.came(caller, method)

    def connectionLost(self, reason: Failure) -> None:
        self.gone = True
        self.factory.open.discard(self)
        if self._timer.active():
            self._timer.cancel()
        super().connectionLost(reason)
        caller, keeper = self.caller, self.factory.keeper
        if caller is not None:
            keeper.went(caller, self.factory.reactor.seconds() - self._came_at)
        elif self.offered:
            # Agents offer every key they have: all of a connection are one try.
            keeper.failed(self.offered, "ssh", self.peer, "publickey")


class _Portal:
    """What conch asks for the ways there are; who comes is looked at by ``_Auth``."""

    def listCredentialsInterfaces(self) -> list[Any]:
        return [ISSHPrivateKey, IUsernamePassword]


class _Auth(SSHUserAuthServer):
    _log = _quiet
    loginTimeout = LOGIN_S
    attemptsBeforeDisconnect = MOST_TRIES

    def serviceStarted(self) -> None:
        self.clock = self.transport.factory.reactor
        super().serviceStarted()
        self.portal = self

    def login(self, credentials: Any, _mind: Any, *_interfaces: Any) -> Deferred[Any]:
        """As a portal does, but it knows from where somebody comes."""
        return Deferred.fromCoroutine(self._login(credentials))

    async def _login(self, credentials: Any) -> Any:
        transport, keeper = self.transport, self.transport.factory.keeper
        name = credentials.username.decode("utf-8", "replace")
        if transport.caller is not None:
            raise UnauthorizedLogin("somebody is in already")
        if ISSHPrivateKey.providedBy(credentials):
            method = "publickey"
            self._check_key(name, credentials)
        else:
            method = "password"
            password = credentials.password.decode("utf-8", "replace")
            if not await keeper.password(name, password, "ssh", transport.peer):
                raise UnauthorizedLogin("no")
        if transport.gone:
            # While its password was looked at: nobody would count it out again.
            raise UnauthorizedLogin("gone")
        if keeper.full:
            transport.factory.desk.came(name, "ssh", transport.peer, "busy", method)
            raise UnauthorizedLogin("too many are in")
        caller = keeper.caller(name, "ssh", transport.peer, with_key=method == "publickey")
        transport.came(caller, method)
        return IConchUser, _Avatar(transport.factory, caller), lambda: None

    def _check_key(self, name: str, credentials: Any) -> None:
        transport, keeper = self.transport, self.transport.factory.keeper
        if keeper.locked(name, "ssh", transport.peer, "publickey"):
            raise UnauthorizedLogin("no")
        if not keeper.knows(name, credentials.blob) or credentials.algName == b"ssh-rsa":  # SHA-1
            transport.offered = name
            raise UnauthorizedLogin("no")
        if credentials.signature is None:
            raise ValidPublicKey
        try:
            right = Key.fromString(credentials.blob).verify(credentials.signature, credentials.sigData)
        except (BadKeyError, ValueError, TypeError):
            right = False
        if not right:
            keeper.failed(name, "ssh", transport.peer, "publickey")
            raise UnauthorizedLogin("no")


class _Connection(SSHConnection):
    _log = _quiet


class _Avatar(ConchUser):
    def __init__(self, console: SshConsole, caller: Caller) -> None:
        super().__init__()
        self.console = console
        self.caller = caller
        self.channels = 0

    def lookupChannel(self, channelType: bytes, windowSize: int, maxPacket: int, data: bytes) -> Any:
        if channelType != b"session" or self.channels >= MOST_CHANNELS:
            raise ConchError("only sessions, and few", 3)
        self.channels += 1
        return _Channel(remoteWindow=windowSize, remoteMaxPacket=maxPacket, data=data, avatar=self)


class _Pipe:
    """What a terminal's protocol writes to."""

    def __init__(self, channel: _Channel) -> None:
        self.write = channel.write
        self.loseConnection = channel.loseConnection
        self.getPeer = channel.getPeer
        self.getHost = channel.getHost


class _Channel(SSHChannel):
    _log = _quiet
    name = b"session"

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._flow = Flow()
        self._size = (80, 24)
        self._server: Any = None
        self._running: Deferred[Any] | None = None

    def request_pty_req(self, data: bytes) -> int:
        try:
            _, (rows, columns, *_rest), _ = parseRequest_pty_req(data)
        except (struct.error, ValueError, IndexError):
            return 0
        self._size = (columns or 80, rows or 24)
        return 1

    def request_window_change(self, data: bytes) -> int:
        rows, columns, *_ = parseRequest_window_change(data)
        self._size = (columns or 80, rows or 24)
        if self._server is not None:
            self._server.terminalProtocol.terminalSize(*self._size)
        return 1

    def request_shell(self, _data: bytes) -> int:
        if self._server is not None or self._running is not None:
            return 0
        console, caller = self.avatar.console, self.avatar.caller
        namespace = console.namespace() if caller.with_key and caller.role == "developer" else None
        python = None if namespace is None else lambda terminal: Python(terminal, dict(namespace))
        self._server = ServerProtocol(
            Terminal, console.reactor, console.desk, caller, self._flow, idle_s=console.idle_s(), python=python
        )
        self._server.makeConnection(_Pipe(self))
        self._server.terminalProtocol.terminalSize(*self._size)
        return 1

    def request_exec(self, data: bytes) -> int:
        if self._server is not None or self._running is not None:
            return 0
        line = getNS(data)[0].decode("utf-8", "replace")
        running = self._running = Deferred.fromCoroutine(self._execute(line))
        running.addBoth(self._executed)
        return 1

    async def _execute(self, line: str) -> int:
        desk, caller = self.avatar.console.desk, self.avatar.caller
        # The answer to the request goes out first.
        await deferLater(self.avatar.console.reactor, 0)
        as_json = line.rstrip().endswith(f" {JSON}")
        line = line.rstrip().removesuffix(JSON) if as_json else line
        try:
            if line.strip() == "python":
                desk.ordered(caller, line, "denied")
                raise Refusal("denied", "python is for terminals")
            told = await desk.line(caller, line)
            words, on = split(line), False
            while True:
                text = msgspec.json.encode(told) if as_json else "\n".join(lines(told, on=on)).encode("utf-8")
                on = on or bool(told.tables)
                self.write(text + b"\n" if text else b"")
                if self._flow.blocked:
                    await self._flow.taken()
                if not told.next:
                    return 0
                await deferLater(self.avatar.console.reactor, told.again_s)
                told = await desk.again(caller, words, told.next)
        except Refusal as refusal:
            self.writeExtended(1, f"{refusal}\n".encode())
            return 1

    def _executed(self, result: Any) -> None:
        if isinstance(result, Failure) and not result.check(CancelledError):
            self.avatar.console.desk.broke(result)
        if self.localClosed:
            return
        code = result if isinstance(result, int) else 1
        self.conn.sendRequest(self, b"exit-status", struct.pack(">L", code))
        self.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        if self._server is not None:
            self._server.dataReceived(data)
        elif b"\x03" in data and self._running is not None:
            self._running.cancel()

    def stopWriting(self) -> None:
        self._flow.pauseProducing()

    def startWriting(self) -> None:
        self._flow.resumeProducing()

    def eofReceived(self) -> None:
        if self._server is not None:
            self.loseConnection()

    def closed(self) -> None:
        self.avatar.channels -= 1
        self._flow.end()
        server, self._server = self._server, None
        if server is not None:
            server.connectionLost(Failure(CancelledError()))
        if self._running is not None:
            self._running.cancel()

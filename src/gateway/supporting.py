"""
The support console put together: what it asks, where it listens, and who may come in.

Part of the composition root. conch imports the reactor, so its rooms are imported when they are needed, by when there
is the right one.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError

from gateway.config.console_users import load_users
from gateway.config.describe import describe
from gateway.config.load import ConfigErrors
from gateway.config.sections import Config
from gateway.console.desk import Caller, Desk
from gateway.console.told import Refusal
from gateway.console.verb import Face
from gateway.core.problems import Problem
from gateway.node.api_keys import Key
from gateway.node.support import House, Support
from gateway.web.admin_pages import Page
from gateway.web.listen import ListenFailed
from gateway.web.verbs_page import verbs_page

if TYPE_CHECKING:
    from gateway.app import Gateway

__all__ = ["Supporting"]

MOST_CHANGED: Final = 200


class Supporting:
    """
    The console of one instance: it answers for all, wherever it is asked.

    Made before the node is heard by others, so that each instance answers what consoles elsewhere ask.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        node, stores = gateway.live.node, gateway.storage.stores
        self._changed: list[list[Any]] = []
        house = House(
            upstreams=lambda: [*gateway.backends.describe(), *gateway.calls.describe()],
            eject=self._eject,
            restore=self._restore,
            level=gateway.logs.set_level,
            config=self._config,
            drain=lambda: os.kill(os.getpid(), signal.SIGTERM),
        )
        Support(node, house)
        gateway.journal.taps = node.hub.taps
        face = Face(node, gateway.revocations, stores.events, stores.sessions)
        self.desk = Desk(face, gateway.log, gateway.metrics, gateway.reactor)
        self._keeper: Any = None
        self._doors: list[Any] = []
        self._ports: list[Any] = []

    async def open(self) -> None:
        """
        Open what the configuration says: nothing by itself.

        Raises:
            ListenFailed, OSError, ValueError: it cannot be opened; then none of it is.
        """
        section = self._gateway.config.console
        if section.ssh is None and section.telnet is None:
            return
        from gateway.console.doorkeeper import Doorkeeper

        assert section.users_file is not None, "checked"
        try:
            users = load_users(section.users_file)
        except ConfigErrors as errors:
            raise ValueError(str(errors)) from errors
        self._keeper = Doorkeeper(self._gateway.reactor, self.desk, section, users)
        try:
            if section.ssh is not None:
                await self._listen(section.ssh, self._ssh())
            if section.telnet is not None:
                await self._listen(section.telnet, self._telnet())
        except BaseException:
            await self.close()
            raise

    def _ssh(self) -> Any:
        from gateway.console.host_key import fingerprint, host_key
        from gateway.console.ssh import SshConsole

        gateway = self._gateway
        section = gateway.config.console
        folder = section.host_key_folder
        if folder is None:
            folder = (section.users_file or Path()).parent
        key, made = host_key(folder)
        gateway.log.info("console.host_key", made=made, fingerprint=fingerprint(key))
        return SshConsole(
            gateway.reactor,
            self.desk,
            self._keeper,
            key,
            idle_s=lambda: gateway.config.console.idle_s,
            namespace=lambda: (
                {"gateway": gateway, "node": gateway.live.node} if gateway.config.console.python else None
            ),
        )

    def _telnet(self) -> Any:
        from gateway.console.telnet import TelnetConsole

        gateway = self._gateway
        return TelnetConsole(gateway.reactor, self.desk, self._keeper, idle_s=lambda: gateway.config.console.idle_s)

    async def _listen(self, endpoint: str, door: Any) -> None:
        try:
            port = await serverFromString(self._gateway.reactor, endpoint).listen(door)
        except CannotListenError as error:
            raise ListenFailed(f"{endpoint}: {error.socketError}") from error
        except (ValueError, TypeError, OSError, LookupError) as error:
            raise ListenFailed(f"{endpoint}: {error}") from error
        self._doors.append(door)
        self._ports.append(port)
        self._gateway.log.info("console.opened", endpoint=endpoint)

    async def close(self) -> None:
        """
        Close every door, and put everybody out.
        """
        ports, self._ports = self._ports, []
        for port in ports:
            await port.stopListening()
        doors, self._doors = self._doors, []
        for door in doors:
            door.close()

    def prepare(self, config: Config) -> tuple[Any, list[str]]:
        """
        Do all that *config* asks and that may fail.

        Returns:
            What puts it in force, and what needs a restart.

        Raises:
            ConfigErrors: the users' file cannot be taken.
        """
        before, section = self._gateway.config, config.console
        users = load_users(section.users_file) if section.users_file is not None and self._keeper is not None else ()
        restart = [
            f"console.{name}"
            for name in ("ssh", "telnet", "host_key_folder")
            if getattr(section, name) != getattr(before.console, name)
        ]

        def change() -> None:
            old, new = dict(_flat(describe(before))), dict(_flat(describe(config)))
            keys = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
            self._changed = [[name, old.get(name), new.get(name)] for name in keys[:MOST_CHANGED]]
            if self._keeper is not None and users:
                self._keeper.configure(section, users)

        return change, restart

    # What this instance has beside its node.

    def _config(self) -> dict[str, Any]:
        gateway = self._gateway
        return {
            "digest": gateway.config.digest,
            "source": str(gateway.path),
            "reload_fault": gateway.reloading.fault,
            "keys": [[name, value] for name, value in _flat(describe(gateway.config))],
            "changed": self._changed,
        }

    def _clusters(self) -> Iterator[Any]:
        yield from self._gateway.backends.clusters()
        yield from self._gateway.calls.clusters()

    def _eject(self, upstream: str, target: str, for_s: float) -> bool:
        now = self._gateway.reactor.seconds()
        return _any(each.eject(target, now, for_s) for each in self._clusters() if each.name == upstream)

    def _restore(self, upstream: str, target: str) -> bool:
        now = self._gateway.reactor.seconds()
        return _any(each.restore(target, now) for each in self._clusters() if each.name == upstream)

    # The same over the admin port.

    def pages(self) -> dict[bytes, Page]:
        """
        List the pages of the admin port.
        """
        return verbs_page(self.ordered)

    def ordered(self, key: Key, body: bytes, peer: str) -> Deferred[bytes]:
        """
        Do what the body of ``POST /ctl`` says.

        Fails with ``Problem``: it was not done.
        """
        return Deferred.fromCoroutine(self._ordered(key, body, peer))

    async def _ordered(self, key: Key, body: bytes, peer: str) -> bytes:
        role = "operator" if key.allows("operate") else "viewer" if key.allows("read") else ""
        caller = Caller(key.name, role, "ctl", peer)
        try:
            order = _decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self.desk.misread(caller)
            raise Problem("bad_request", str(error)) from error
        try:
            return _encode(await self.desk.do(caller, [order.verb, *order.args], order.next))
        except Refusal as refusal:
            code = {"denied": "forbidden", "failed": "command_failed"}.get(refusal.outcome, "bad_request")
            raise Problem(code, str(refusal), reason=f"console {refusal.outcome}") from refusal


class _Order(msgspec.Struct, forbid_unknown_fields=True):
    verb: str
    args: list[str] = []
    next: str = ""


_decode: Final = msgspec.json.Decoder(_Order).decode
_encode: Final = msgspec.json.Encoder().encode


def _any(done: Iterator[bool]) -> bool:
    """Whether one of *done* was; all are done."""
    return sum(done) > 0


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, each in value.items():
            yield from _flat(each, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for index, each in enumerate(value):
            yield from _flat(each, f"{path}[{index}]")
    else:
        yield path, value

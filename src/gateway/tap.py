"""
``twistd gateway``: from the command line to a running service.

The only module that imports the reactor, and only once ``makeService`` or ``work`` runs: until then it can
still be chosen.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ReactorNotRunning
from twisted.logger import ILogObserver, globalLogBeginner
from twisted.python import usage
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from gateway.telemetry.logs import Logs, LogsBridge
from gateway.telemetry.sink import Sink
from gateway.web.listen import ListenFailed
from gateway.web.tls import CertificateFault

if TYPE_CHECKING:
    from gateway.workers.line import Begin

__all__ = ["GatewayService", "Instance", "Options", "makeService", "work"]

DEFAULT_CONFIG = "gateway.toml"
GC_THRESHOLDS = (50_000, 20, 20)
"""Objects made and not freed until the collector looks at the young ones; then rounds until it looks at older ones."""


class Options(usage.Options):
    """
    The command line of ``twistd gateway``.
    """

    synopsis = "[--config FILE]"
    longdesc = (
        "Serve HTTP and WebSocket clients in front of backends. In the foreground: "
        "'twistd -n gateway --config FILE'. As a daemon: 'twistd --pidfile FILE --logfile FILE gateway --config FILE'. "
        "SIGHUP reads the configuration and certificates again, SIGTERM drains and stops. "
        "'gateway check FILE' tells everything that is wrong with a configuration."
    )
    optParameters = [  # noqa: RUF012  # usage.Options wants a list here
        [
            "config",
            "c",
            None,
            f"The configuration. Default: $GATEWAY_CONFIG, else {DEFAULT_CONFIG} in the working directory.",
        ],
    ]

    def postOptions(self) -> None:
        """Settle which file is meant."""
        if self["config"] is None:
            self["config"] = os.environ.get("GATEWAY_CONFIG", DEFAULT_CONFIG)


class Instance(Protocol):
    """
    What the service runs: a gateway, the parent of several, or one of these.
    """

    async def start(self) -> None:
        """Open everything."""

    async def stop(self) -> None:
        """Drain and close."""

    def hang_up(self) -> None:
        """Do what SIGHUP asks, beyond the log."""

    def kill(self) -> None:
        """End at once whatever would outlive this process."""


Make = Callable[[Logs, Callable[[], None]], Instance]
"""Makes an instance that writes to these logs; the other is for one that is told to open its log again."""


def makeService(options: Options) -> IService:
    """
    Read the configuration and build the service; nothing is opened before it starts.

    Raises:
        SystemExit: with every fault of the configuration, one a line.
    """
    from gateway.config.load import ConfigErrors, parse, read
    from gateway.workers.worker import spawner

    _silence_grpc()
    path = Path(options["config"]).absolute()
    try:
        text = read(path)
        config = parse(text, str(path), os.environ)
    except ConfigErrors as errors:
        raise SystemExit(str(errors)) from None

    parent: dict[str, Any] = options.parent or {}
    daemon = not (parent.get("nodaemon") or parent.get("debug"))
    log_file = parent.get("logfile")
    log_path = None if not log_file or log_file == "-" else Path(log_file).absolute()
    if daemon and log_path is None:
        log_path = Path("twistd.log").absolute()
    reactor = _reactor()
    several = config.listen.workers > 1
    turns = os.memfd_create("gateway-log-turns") if several else None
    sink = Sink(_open_log(log_path) if log_path else 1, turns=turns)
    terminal = log_path is None and os.isatty(1)
    pretty = config.log.format == "pretty" or (config.log.format == "auto" and terminal)

    spawn = None if turns is None else spawner(reactor, sink, turns, os.environ)

    def make(logs: Logs, _: Callable[[], None]) -> Instance:
        # Imported in here, so that whatever goes wrong is told: twistd's standard error is a log by now.
        if spawn is None:
            from gateway.app import Gateway

            return Gateway(reactor, config, path, logs)
        from gateway.workers.parent import Parent

        name = parent.get("reactor") or ""
        return Parent(reactor, text, config, path, logs, spawn, reactor_name=name, log_path=log_path)

    logs = Logs(sink, pretty=pretty, level=config.log.level, privacy=config.privacy.of("logs"))
    if several:
        logs.sign(worker="parent")
    return GatewayService(reactor, make, logs, log_path, daemon=daemon)


def work(begin: Begin, end: socket.socket, turns: int) -> None:
    """
    Run one worker until it has drained.

    Args:
        begin: What its parent said first.
        end: The worker's end of the line.
        turns: The open file by which those who write the log take turns.

    Raises:
        SystemExit: it cannot start; the parent has been told why.
    """
    from gateway.config.load import ConfigErrors, parse
    from gateway.workers.line import attach, tell_now

    mouth = end.dup()
    try:
        config = parse(begin.text, begin.path, os.environ)
    except ConfigErrors as errors:
        tell_now(mouth, "cannot_start", str(errors))
        raise SystemExit(1) from None
    reactor = _reactor(begin.reactor)

    def make(logs: Logs, rotate: Callable[[], None]) -> Instance:
        from gateway.workers.child import Child

        child = Child(reactor, begin, config, logs, rotate)
        attach(reactor, end, child.line)
        return child

    privacy = config.privacy.of("logs")
    logs = Logs(Sink(1, turns=turns), pretty=begin.pretty, level=config.log.level, privacy=privacy)
    logs.sign(worker=str(begin.number))
    log_path = Path(begin.log_path) if begin.log_path else None
    cannot = lambda reason: tell_now(mouth, "cannot_start", reason)  # noqa: E731
    service = GatewayService(reactor, make, logs, log_path, cannot=cannot, ordered=True)
    globalLogBeginner.beginLoggingTo([service.bridge])
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()


def _silence_grpc() -> None:
    """
    Have gRPC's C core write nothing: it would be to standard error, past the log, and wait there for whoever reads that.

    What it has to say comes back with the call that failed. Whoever looks for more sets the variable.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def _reactor(name: str = "") -> Any:
    """The process's reactor: twistd's choice, else *name*, else ours."""
    if "twisted.internet.reactor" not in sys.modules:
        if name:
            from twisted.application.reactors import installReactor

            installReactor(name)
        else:
            from gateway.net.reactor import install

            install()
    from twisted.internet import reactor

    return reactor


def _open_log(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)


def _to_terminal(reason: str) -> None:
    # Not sys.stderr: twistd has made that a part of the log.
    os.write(2, f"gateway: {reason}\n".encode())


class GatewayService(Service):
    """
    The instance as twistd runs it: its log, its signals, its start and its drain.

    Args:
        make: Makes the instance, when the service starts.
        log_path: What is opened again at SIGHUP; None for standard output.
        daemon: twistd leaves the terminal, and tells what a start fails of.
        cannot: Told why it cannot start, where it is no daemon.
        ordered: It is also ended by order; then a first signal says the same again, and only a second ends it at once.

    Attributes:
        bridge: Brings what others log to our log.
    """

    def __init__(
        self,
        reactor: Any,
        make: Make,
        logs: Logs,
        log_path: Path | None,
        *,
        daemon: bool = False,
        cannot: Callable[[str], None] = _to_terminal,
        ordered: bool = False,
    ) -> None:
        self._reactor = reactor
        self._make = make
        self._daemon = daemon
        self._cannot = cannot
        self._ordered = ordered
        self._log_path = log_path
        self._logs = logs
        self._sink = logs.sink
        self.bridge = LogsBridge(logs)
        self._instance: Instance | None = None

    def setServiceParent(self, parent: Any) -> None:
        """
        Become the application's service, and its log.
        """
        if isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self.bridge)
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]

    def startService(self) -> None:
        """
        Open everything; twistd has forked and is about to run the reactor.
        """
        super().startService()  # type: ignore[no-untyped-call]
        self._sink.start()
        logging.getLogger().addHandler(self.bridge)
        failures: list[Failure] = []
        starting = Deferred.fromCoroutine(self._begin())
        starting.addErrback(failures.append)
        if failures:
            self._cannot_start(failures[0])
        starting.addCallback(lambda _: self._cannot_start(failures[0]) if failures else None)
        signal.signal(signal.SIGHUP, lambda _signal, _frame: self._reactor.callFromThread(self._hang_up))
        # The reactor takes these for itself when it begins to run.
        self._reactor.callWhenRunning(self._take_signals)

    async def _begin(self) -> None:
        self._instance = self._make(self._logs, self._open_again)
        await self._instance.start()
        # What is there now stays: looking through it again and again would find nothing. A request
        # leaves next to no circles, so the collector need not look after every few of them.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)

    def _take_signals(self) -> None:
        """
        Stop at SIGTERM and SIGINT with exit code 0; left to twistd, a clean end would look like a death by the signal.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._asked_to_stop)

    def _asked_to_stop(self, number: int, _frame: Any) -> None:
        self._end_at_next_signal()

        def stop() -> None:
            self._logs.logger().info("signal.received", signal=signal.Signals(number).name)
            with suppress(ReactorNotRunning):  # It was asked by order, a moment ago.
                self._reactor.stop()

        self._reactor.callFromThread(stop)

    def _cannot_start(self, failure: Failure) -> None:
        """
        One sentence on standard error and in the log, and an exit code.
        """
        expected = failure.check(ListenFailed, CertificateFault, OSError, ValueError) is not None
        if expected:
            self._logs.logger().error("gateway.cannot_start", reason=str(failure.value))
        else:
            self._logs.logger().error("gateway.cannot_start", exception=failure.getTraceback())
        self._sink.stop()
        if self._daemon and not self._reactor.running:
            # twistd tells its parent, which waits for this and writes it to the terminal.
            raise RuntimeError(f"gateway: {failure.value}")
        self._cannot(str(failure.value))
        if self._reactor.running:
            os._exit(1)
        raise SystemExit(1)

    def _hang_up(self) -> None:
        self._open_again()
        if self._instance is not None:
            self._instance.hang_up()

    def _open_again(self) -> None:
        """
        Write to a new file where the log was renamed; one that cannot be opened leaves everything as it is.
        """
        if self._log_path is None:
            return
        try:
            self._sink.switch(_open_log(self._log_path))
        except OSError as error:
            self._logs.logger().error("log.not_opened", path=str(self._log_path), reason=str(error))

    def stopService(self) -> Deferred[None]:
        """
        Drain and close; a second signal ends the process at once.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        if not self._ordered:
            self._end_at_next_signal()
        stopping = Deferred.fromCoroutine(self._instance.stop()) if self._instance is not None else succeed(None)

        def last_words(result: Any) -> Any:
            self._sink.stop()
            return result

        return stopping.addBoth(last_words)

    def _end_at_next_signal(self) -> None:
        def end(_number: int, _frame: Any) -> None:
            if self._instance is not None:
                self._instance.kill()
            os._exit(1)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)

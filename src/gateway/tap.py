"""
``twistd gateway``: from the command line to a running service.

The only module that imports the reactor, and only once ``makeService`` runs: until then it can
still be chosen.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import ILogObserver
from twisted.python import usage
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from gateway.config.sections import Config
from gateway.telemetry.logs import Logs, LogsBridge
from gateway.telemetry.sink import Sink
from gateway.web.listen import ListenFailed
from gateway.web.tls import CertificateFault

if TYPE_CHECKING:
    from gateway.app import Gateway

__all__ = ["GatewayService", "Options", "makeService"]

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


def makeService(options: Options) -> IService:
    """
    Read the configuration and build the service; nothing is opened before it starts.

    Raises:
        SystemExit: with every fault of the configuration, one a line.
    """
    from gateway.config.load import ConfigErrors, load

    path = Path(options["config"]).absolute()
    try:
        config = load(path, os.environ)
    except ConfigErrors as errors:
        raise SystemExit(str(errors)) from None

    if "twisted.internet.reactor" not in sys.modules:
        from gateway.net.reactor import install

        install()
    from twisted.internet import reactor

    parent: dict[str, Any] = options.parent or {}
    daemon = not (parent.get("nodaemon") or parent.get("debug"))
    return GatewayService(reactor, config, path, log_file=parent.get("logfile"), daemon=daemon)


class GatewayService(Service):
    """
    The instance as twistd runs it: its log, its signals, its start and its drain.

    Args:
        log_file: twistd's ``--logfile``; None or ``-`` is standard output.
        daemon: twistd leaves the terminal; the log then goes to a file.
    """

    def __init__(self, reactor: Any, config: Config, path: Path, *, log_file: str | None, daemon: bool) -> None:
        self._reactor = reactor
        self._daemon = daemon
        self._log_path = None if not log_file or log_file == "-" else Path(log_file).absolute()
        if daemon and self._log_path is None:
            self._log_path = Path("twistd.log").absolute()
        descriptor = self._open_log() if self._log_path else 1
        terminal = self._log_path is None and os.isatty(1)
        pretty = config.log.format == "pretty" or (config.log.format == "auto" and terminal)
        self._sink = Sink(descriptor)
        self._logs = Logs(self._sink, pretty=pretty, level=config.log.level)
        self._bridge = LogsBridge(self._logs)
        self._gateway: Gateway | None = None
        self._config = config
        self._path = path

    def setServiceParent(self, parent: Any) -> None:
        """
        Become the application's service, and its log.
        """
        if isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._bridge)
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]

    def startService(self) -> None:
        """
        Open everything; twistd has forked and is about to run the reactor.
        """
        super().startService()  # type: ignore[no-untyped-call]
        self._sink.start()
        logging.getLogger().addHandler(self._bridge)
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
        # Imported in here, so that whatever goes wrong is told: twistd's standard error is a log by now.
        from gateway.app import Gateway

        self._gateway = Gateway(self._reactor, self._config, self._path, self._logs)
        await self._gateway.start()
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
        _end_at_next_signal()

        def stop() -> None:
            self._logs.logger().info("signal.received", signal=signal.Signals(number).name)
            self._reactor.stop()

        self._reactor.callFromThread(stop)

    def _cannot_start(self, failure: Failure) -> None:
        """
        One sentence on standard error and in the log, and an exit code.
        """
        text = f"gateway: {failure.value}"
        expected = failure.check(ListenFailed, CertificateFault, OSError, ValueError) is not None
        if expected:
            self._logs.logger().error("gateway.cannot_start", reason=str(failure.value))
        else:
            self._logs.logger().error("gateway.cannot_start", exception=failure.getTraceback())
        self._sink.stop()
        if self._daemon and not self._reactor.running:
            # twistd tells its parent, which waits for this and writes it to the terminal.
            raise RuntimeError(text)
        # Not sys.stderr: twistd has made that a part of the log.
        os.write(2, text.encode() + b"\n")
        if self._reactor.running:
            os._exit(1)
        raise SystemExit(1)

    def _hang_up(self) -> None:
        if self._log_path is not None:
            os.close(self._sink.switch(self._open_log()))
        if self._gateway is not None:
            self._gateway.reloading.now()

    def _open_log(self) -> int:
        return os.open(str(self._log_path), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def stopService(self) -> Deferred[None]:
        """
        Drain and close; a second signal ends the process at once.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        _end_at_next_signal()
        stopping = Deferred.fromCoroutine(self._gateway.stop()) if self._gateway is not None else succeed(None)

        def last_words(result: Any) -> Any:
            self._sink.stop()
            return result

        return stopping.addBoth(last_words)


def _end_at_next_signal() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _signal, _frame: os._exit(1))

"""
``twistd gateway``: from the command line to a running service.

The only module that imports the reactor, and only once ``makeService`` runs: until then it can
still be chosen.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from twisted.application.service import IService
from twisted.python import usage

__all__ = ["Options", "makeService"]

DEFAULT_CONFIG = "gateway.toml"


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
    from gateway.config.load import ConfigErrors, load  # noqa: I001  # the reactor comes before whoever wants it

    path = Path(options["config"]).absolute()
    try:
        config = load(path, os.environ)
    except ConfigErrors as errors:
        raise SystemExit(str(errors)) from None

    if "twisted.internet.reactor" not in sys.modules:
        from gateway.net.reactor import install

        install()
    from twisted.internet import reactor

    from gateway.app import GatewayService

    parent = options.parent or {}
    return GatewayService(
        reactor,
        config,
        path,
        log_file=parent.get("logfile"),
        daemon=not parent.get("nodaemon", False),
    )

"""
A new configuration for an instance that runs: whatever may fail is done first, then all of it changes at once.

Part of the composition root: it knows which rooms take what, and decides nothing about a request.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gateway.config.load import ConfigErrors, load
from gateway.config.sections import Config
from gateway.web.tls import CertificateFault

if TYPE_CHECKING:
    from gateway.app import Gateway

__all__ = ["REFUSALS", "Change", "Reloading"]

_LOG_KEYS: Final = ("format", "access", "sessions")

REFUSALS: Final = (ConfigErrors, CertificateFault, OSError, ValueError)
"""What a configuration that cannot be used raises while a change to it is prepared."""

Change = Callable[[], None]
"""Puts into force what was prepared; it does not fail."""


class Reloading:
    """
    How one instance changes over.

    Attributes:
        fault: Why the last configuration was refused; empty if it was not.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.fault = ""

    def now(self) -> list[str]:
        """
        Read the configuration and certificates again, and change over at once or not at all.

        Requests under way keep what they began with. Returns the faults; empty when all went well.
        """
        try:
            change = self.prepare(load(self._gateway.path, os.environ))
        except REFUSALS as error:
            return self.refuse(str(error).splitlines())
        change()
        return []

    def refuse(self, faults: list[str]) -> list[str]:
        """
        Tell that a configuration was refused, and go on with the one in force; return *faults*.
        """
        gateway = self._gateway
        self.fault = "\n".join(faults)
        gateway.metrics.config_reloads.inc("refused")
        gateway.log.warning("config.refused", config=str(gateway.path), faults=faults)
        return faults

    def prepare(self, config: Config) -> Change:
        """
        Do all that *config* asks and that may fail; nothing has changed yet.

        Raises:
            ConfigErrors, CertificateFault, OSError, ValueError: it cannot be used; one line for each fault.
        """
        gateway = self._gateway
        config = gateway.part.narrow(config)
        change_backends = gateway.backends.prepare(config.upstream)
        change_calls, schemas = gateway.calls.prepare(config.upstream)
        mounts, change_live = gateway.compiled(config, schemas)
        change_listeners, restart = gateway.listening.prepare(config.listen.clients)
        change_keys = gateway.keys.prepare(config.auth)
        gateway.load_revocations(config)
        change_console, restart_console = gateway.supporting.prepare(config)
        restart += restart_console
        if config.listen.workers != gateway.config.listen.workers:
            restart.append("listen.workers")
        events, before_events = config.events, gateway.config.events
        kept = {"spool": "spool", "most_waiting": "most_waiting", "memory": "memory_bytes"}
        restart += [
            f"events.{key}" for key, name in kept.items() if getattr(events, name) != getattr(before_events, name)
        ]
        if config.privacy != gateway.config.privacy:
            restart.append("privacy")
        before = gateway.config.log
        restart += [f"log.{key}" for key in _LOG_KEYS if getattr(config.log, key) != getattr(before, key)]

        def change() -> None:
            change_console()
            before, gateway.config = gateway.config, config
            change_backends()
            change_calls()
            change_listeners()
            change_keys()
            gateway.authenticator.configure(config.auth)
            change_live()
            gateway.edge.plan = gateway.plan(config, mounts)
            if gateway.calls.reflects():
                gateway.background.spawn("descriptors.ask", self._ask_again())
            gateway.site.configure(config.limits, gateway.edge.plan.browsers)
            gateway.logs.set_level(config.log.level)
            gateway.tracing.configure(config.tracing)
            gateway.admin.configure(config.listen, config.admin_key)
            gateway.api_keys.configure(config.admin_key)
            self.fault = ""
            gateway.metrics.config_reloads.inc("taken")
            gateway.log.info("config.taken", digest=config.digest, before=before.digest, needs_restart=restart)

        return change

    async def _ask_again(self) -> None:
        """
        Ask backends that tell their descriptors themselves; what they told before holds until they answer.
        """
        gateway = self._gateway
        if not await gateway.calls.ask_again():
            return
        try:
            mounts, change_live = gateway.compiled(gateway.config, gateway.calls.schemas())
        except ValueError as error:
            gateway.log.warning("descriptors.refused", faults=str(error).splitlines())
            return
        change_live()
        gateway.edge.plan = gateway.plan(gateway.config, mounts)

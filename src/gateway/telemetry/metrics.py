"""
Every metric of the gateway, in one place: name, unit, closed label set.

Labels are routes, upstreams, kinds and reasons: words of the configuration or of this code,
never paths, users or texts from outside. Names end in their unit.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from prometheus_client import CollectorRegistry, GCCollector, Info, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as open_text

from gateway.telemetry.tally import Reading, Tally, Timing

__all__ = ["Metrics", "package_version"]


def package_version() -> str:
    """
    Return the installed version, or ``0+unknown`` when run from a bare checkout.
    """
    try:
        return version("twistd-gateway")
    except PackageNotFoundError:
        return "0+unknown"


class Metrics:
    """
    The metrics of one instance, in a registry of their own.

    Nothing is global: two instances in one process count apart.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)

        # HTTP towards clients.
        self.requests = Tally("gateway_http_requests", "Requests answered or abandoned.", ("route", "method", "status"))
        self.request_seconds = Timing(
            "gateway_http_request_duration_seconds", "From the end of the headers to the end of the answer.", ("route",)
        )
        self.request_bytes = Tally("gateway_http_request_body_bytes", "Body bytes taken from clients.")
        self.response_bytes = Tally("gateway_http_response_body_bytes", "Body bytes given to clients.")
        self.refusals = Tally("gateway_refusals", "Answers made by the gateway itself, by problem code.", ("code",))
        self.malformed = Tally(
            "gateway_malformed_requests", "Requests that could not be read, by problem code.", ("code",)
        )
        self.auth_failures = Tally("gateway_auth_failures", "Credentials refused, by reason.", ("reason",))
        self.rule_denials = Tally(
            "gateway_rule_denials", "Requests denied by a route's expression, by cause.", ("cause",)
        )
        self.active_requests = Reading("gateway_http_active_requests", "Requests under way.")
        self.connections = Reading("gateway_connections", "Client connections open now.", ("listener",))
        self.connections_total = Reading(
            "gateway_connections_opened", "Client connections accepted.", ("listener",), counter=True
        )
        self.connections_refused = Reading(
            "gateway_connections_refused", "Client connections refused, by limit.", ("limit",), counter=True
        )

        # Backends.
        self.upstream_seconds = Timing(
            "gateway_upstream_duration_seconds", "From the first attempt to the answer's end.", ("upstream",)
        )
        self.upstream_attempts = Tally(
            "gateway_upstream_attempts", "Attempts at a backend, by outcome.", ("upstream", "outcome")
        )
        self.upstream_retries = Tally(
            "gateway_upstream_retries",
            "Second and later attempts, by what allowed or stopped them.",
            ("upstream", "outcome"),
        )
        self.upstream_in_flight = Reading(
            "gateway_upstream_in_flight", "Requests under way at a target.", ("upstream", "target")
        )
        self.upstream_target_up = Reading(
            "gateway_upstream_target_up", "1 while a target is used, 0 while it is left out.", ("upstream", "target")
        )
        self.upstream_breaker = Reading(
            "gateway_upstream_breaker_state", "0 closed, 1 half open, 2 open.", ("upstream",)
        )
        self.upstream_connections = Reading(
            "gateway_upstream_connections", "Connections to a target, by state.", ("upstream", "target", "state")
        )

        self.upstream_ejections = Tally(
            "gateway_upstream_ejections", "Times that a target was left out for its failures.", ("upstream", "target")
        )
        self.grpc_calls = Tally("gateway_grpc_calls", "gRPC calls made, by status.", ("upstream", "code"))

        # Redis.
        self.store_up = Reading("gateway_store_up", "1 while the store of all instances can be asked.")
        self.store_losses = Reading("gateway_store_losses", "Times that Redis was lost.", counter=True)
        self.store_seconds = Timing(
            "gateway_store_duration_seconds", "From a command to its answer; the first of those that came together."
        )

        # Identity.
        self.jwks_age = Reading("gateway_jwks_age_seconds", "Age of the keys of an issuer.", ("issuer",))
        self.token_cache = Reading("gateway_token_cache_entries", "Verified tokens remembered.")

        # Limits.
        self.limit_decisions = Tally(
            "gateway_ratelimit_decisions",
            "What limits let pass or refused, and who counted it: redis, memory, or away from Redis.",
            ("policy", "decision", "store"),
        )
        self.limit_keys = Reading("gateway_ratelimit_keys", "Keys whose budgets are kept in this process.")
        self.limit_keys_forgotten = Reading(
            "gateway_ratelimit_keys_forgotten", "Keys given up because there were too many.", counter=True
        )
        self.openings_refused = Reading(
            "gateway_openings_refused", "Real-time connections told to come back.", counter=True
        )
        self.shed = Reading("gateway_requests_shed", "Requests refused because the instance was late.", counter=True)
        self.shed_share = Reading("gateway_shed_share", "How much of new work is refused now, from 0 to 1.")

        # Traces.
        self.spans = Tally("gateway_spans", "Spans made, by what became of them.", ("outcome",))
        self.span_exports = Tally("gateway_span_exports", "Attempts to send spans, by outcome.", ("outcome",))
        self.spans_waiting = Reading("gateway_spans_waiting", "Spans that wait for the collector.")
        self.span_bytes_waiting = Reading("gateway_spans_waiting_bytes", "What they take.")

        # What a single instance writes down of its sessions.
        self.spool_up = Reading("gateway_spool_up", "1 while the spool has everything that a crash would lose.")
        self.spool_waiting = Reading("gateway_spool_waiting", "Changes of sessions and events not written yet.")
        self.spool_missed = Reading(
            "gateway_spool_missed", "Changes that happened while the spool could not be written.", counter=True
        )

        # The instance.
        self.log_dropped = Reading("gateway_log_dropped", "Log lines dropped because nobody took them.", counter=True)
        self.config_reloads = Tally("gateway_config_reloads", "Reloads of the configuration, by result.", ("result",))
        self.reactor_lag = Timing("gateway_reactor_lag_seconds", "How late a timer of 100 ms fires.")
        self.ready = Reading("gateway_ready", "1 while the instance is ready.")
        self.build = Info("gateway_build", "What is running.", registry=None)
        self.build.info({"version": package_version(), "python": platform.python_version()})
        self.config_info = Reading("gateway_config_info", "1 for the configuration in force.", ("digest",))

        # The support console.
        self.console_commands = Tally(
            "gateway_console_commands", "Commands given to the console, by what became of them.", ("verb", "outcome")
        )
        self.console_logins = Tally("gateway_console_logins", "Who came to the console.", ("over", "outcome"))

        # Workers, told by their parent.
        self.worker_up = Reading("gateway_worker_up", "1 while a worker serves.", ("worker",))
        self.worker_ends = Tally("gateway_worker_ends", "Ends of workers that nobody asked for.", ("worker", "how"))
        self.worker_silent = Tally(
            "gateway_worker_silent", "Questions that a worker did not answer in time.", ("worker", "question")
        )

        self.reactor_lag.series()
        for metric in vars(self).values():
            if isinstance(metric, (Tally, Timing, Reading, Info)):
                self.registry.register(metric)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def saw(self, event: str, fields: Mapping[str, Any]) -> None:
        """
        Count what is told as an event and counted as well.
        """
        if event == "upstream.ejected":
            self.upstream_ejections.inc(fields["upstream"], fields["target"])

    def render(self, *, openmetrics: bool = False) -> bytes:
        """
        Return everything in the Prometheus text format, or in OpenMetrics, which has exemplars.
        """
        if openmetrics:
            text: bytes = open_text(self.registry)  # type: ignore[no-untyped-call]  # untyped in the library
            return text
        return generate_latest(self.registry)

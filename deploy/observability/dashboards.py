"""
Writes the dashboards that Grafana reads: python deploy/observability/dashboards.py deploy/observability/grafana/dashboards.

Each is a list of panels here: a title, a unit, and queries with their legends. Everything else is the same for all.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

__all__ = ["DASHBOARDS", "written"]

_RATE: Final = "$__rate_interval"


class Panel(NamedTuple):
    """
    One panel: its queries are pairs of an expression and a legend.
    """

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"


def rate(metric: str, *by: str, match: str = "") -> str:
    """A counter's rate, summed over everything but *by*."""
    return f"sum{_by(by)} (rate({metric}{{{match}}}[{_RATE}]))"


def p99(metric: str, *by: str) -> str:
    """The 99th percentile of a histogram."""
    return f"histogram_quantile(0.99, sum by ({', '.join((*by, 'le'))}) (rate({metric}_bucket[{_RATE}])))"


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""


DASHBOARDS: Final[dict[str, tuple[str, tuple[Panel, ...]]]] = {
    "edge": (
        "Gateway: the edge",
        (
            Panel("Requests", "reqps", ((rate("gateway_http_requests_total", "route"), "{{route}}"),)),
            Panel(
                "Errors",
                "reqps",
                (
                    (
                        rate("gateway_http_requests_total", "route", "status", match='status=~"5.."'),
                        "{{route}} {{status}}",
                    ),
                ),
            ),
            Panel("p99", "s", ((p99("gateway_http_request_duration_seconds", "route"), "{{route}}"),)),
            Panel("Under way", "short", (("sum by (instance) (gateway_http_active_requests)", "{{instance}}"),)),
            Panel("Refused by the gateway", "reqps", ((rate("gateway_refusals_total", "code"), "{{code}}"),)),
            Panel("Credentials refused", "reqps", ((rate("gateway_auth_failures_total", "reason"), "{{reason}}"),)),
            Panel(
                "Limits",
                "reqps",
                ((rate("gateway_ratelimit_decisions_total", "policy", "decision"), "{{policy}} {{decision}}"),),
            ),
            Panel(
                "Connections",
                "short",
                (
                    ("sum by (instance) (gateway_connections)", "{{instance}}"),
                    (rate("gateway_connections_refused_total", "limit"), "refused: {{limit}}/s"),
                ),
            ),
            Panel(
                "How late the reactor is, p99", "s", ((p99("gateway_reactor_lag_seconds", "instance"), "{{instance}}"),)
            ),
            Panel(
                "CPU",
                "percentunit",
                (('rate(process_cpu_seconds_total{job="gateway"}[$__rate_interval])', "{{instance}} {{worker}}"),),
            ),
            Panel("Memory", "bytes", (('process_resident_memory_bytes{job="gateway"}', "{{instance}} {{worker}}"),)),
            Panel("New work refused", "percentunit", (("max by (instance) (gateway_shed_share)", "{{instance}}"),)),
        ),
    ),
    "realtime": (
        "Gateway: real time",
        (
            Panel("Clients", "short", (("sum by (transport) (gateway_clients)", "{{transport}}"),)),
            Panel("Users", "short", (("sum(gateway_users)", "users"), ("sum(gateway_sessions)", "sessions"))),
            Panel(
                "Subscriptions and channels",
                "short",
                (("sum(gateway_subscriptions)", "subscriptions"), ("sum(gateway_channels)", "channels")),
            ),
            Panel("Connections that ended", "cps", ((rate("gateway_clients_closed_total", "code"), "{{code}}"),)),
            Panel("Commands", "reqps", ((rate("gateway_commands_total", "command"), "{{command}}"),)),
            Panel(
                "Commands that failed",
                "reqps",
                (
                    (
                        rate("gateway_commands_total", "command", "outcome", match='outcome!="ok"'),
                        "{{command}} {{outcome}}",
                    ),
                ),
            ),
            Panel("Publications", "wps", ((rate("gateway_publications_total", "channels"), "{{channels}}"),)),
            Panel("Deliveries", "wps", ((rate("gateway_deliveries_total", "channels"), "{{channels}}"),)),
            Panel("Delivery, p99", "s", ((p99("gateway_delivery_duration_seconds", "channels"), "{{channels}}"),)),
            Panel("Publishing, p99", "s", ((p99("gateway_publish_duration_seconds", "channels"), "{{channels}}"),)),
            Panel(
                "Recoveries",
                "ops",
                ((rate("gateway_recoveries_total", "channels", "outcome"), "{{channels}} {{outcome}}"),),
            ),
            Panel(
                "Slow clients",
                "short",
                (("sum(gateway_clients_slow)", "clients"), ("sum(gateway_outbox_bytes)", "bytes that wait")),
            ),
            Panel(
                "Bytes",
                "Bps",
                (
                    (rate("gateway_client_bytes_total", "direction"), "{{direction}}"),
                    (rate("gateway_fan_out_bytes_total"), "fan-out"),
                ),
            ),
            Panel(
                "Places whose connection was lost",
                "ops",
                ((rate("gateway_presence_places_total", "outcome"), "{{outcome}}"),),
            ),
        ),
    ),
    "upstreams": (
        "Gateway: backends",
        (
            Panel("p99", "s", ((p99("gateway_upstream_duration_seconds", "upstream"), "{{upstream}}"),)),
            Panel(
                "Attempts",
                "reqps",
                ((rate("gateway_upstream_attempts_total", "upstream", "outcome"), "{{upstream}} {{outcome}}"),),
            ),
            Panel(
                "Attempts again",
                "reqps",
                ((rate("gateway_upstream_retries_total", "upstream", "outcome"), "{{upstream}} {{outcome}}"),),
            ),
            Panel(
                "gRPC calls",
                "reqps",
                ((rate("gateway_grpc_calls_total", "upstream", "code"), "{{upstream}} {{code}}"),),
            ),
            Panel(
                "Targets in use",
                "short",
                (("min by (upstream, target) (gateway_upstream_target_up)", "{{upstream}} {{target}}"),),
            ),
            Panel(
                "Ejections",
                "ops",
                ((rate("gateway_upstream_ejections_total", "upstream", "target"), "{{upstream}} {{target}}"),),
            ),
            Panel(
                "Breakers: 0 closed, 1 half open, 2 open",
                "short",
                (("max by (upstream) (gateway_upstream_breaker_state)", "{{upstream}}"),),
            ),
            Panel(
                "Under way",
                "short",
                (("sum by (upstream, target) (gateway_upstream_in_flight)", "{{upstream}} {{target}}"),),
            ),
            Panel(
                "Connections",
                "short",
                (("sum by (upstream, state) (gateway_upstream_connections)", "{{upstream}} {{state}}"),),
            ),
            Panel("Age of issuers' keys", "s", (("max by (issuer) (gateway_jwks_age_seconds)", "{{issuer}}"),)),
        ),
    ),
    "redis": (
        "Gateway: Redis and instances",
        (
            Panel("Redis can be asked", "short", (("min by (instance) (gateway_store_up)", "{{instance}}"),)),
            Panel("Answers, p99", "s", ((p99("gateway_store_duration_seconds", "instance"), "{{instance}}"),)),
            Panel(
                "Losses",
                "ops",
                (("sum by (instance) (increase(gateway_store_losses_total[$__rate_interval]))", "{{instance}}"),),
            ),
            Panel(
                "Instances that live, as each sees them", "short", (("gateway_instances", "{{instance}} {{worker}}"),)
            ),
            Panel(
                "Dead instances tidied up after",
                "short",
                (("sum by (instance) (gateway_instances_tidied)", "{{instance}}"),),
            ),
            Panel(
                "Answers of instances that did not come",
                "ops",
                ((rate("gateway_instances_silent_total", "question"), "{{question}}"),),
            ),
            Panel(
                "Steps of sessions that wait",
                "short",
                (
                    ("sum by (instance) (gateway_session_steps_waiting)", "{{instance}}"),
                    (rate("gateway_session_steps_lost_total", "step", "why"), "lost: {{step}} {{why}}/s"),
                ),
            ),
            Panel(
                "Presence that is not written",
                "short",
                (("sum by (instance) (gateway_presence_unwritten)", "{{instance}}"),),
            ),
            Panel(
                "Workers",
                "short",
                (
                    ("sum by (instance) (gateway_worker_up)", "{{instance}} up"),
                    (rate("gateway_worker_ends_total", "how"), "ends: {{how}}/s"),
                ),
            ),
        ),
    ),
    "sessions": (
        "Gateway: sessions and their events",
        (
            Panel("Sessions", "short", (("sum(gateway_sessions)", "open"),)),
            Panel(
                "Begun and over",
                "ops",
                (
                    (rate("gateway_sessions_opened_total"), "begun"),
                    (rate("gateway_sessions_closed_total", "cause"), "{{cause}}"),
                ),
            ),
            Panel("Events that wait", "short", (("sum(gateway_events_waiting)", "events"),)),
            Panel("The oldest has waited", "s", (("max(gateway_events_oldest_age_seconds)", "oldest"),)),
            Panel("Events told", "ops", ((rate("gateway_events_told_total", "kind"), "{{kind}}"),)),
            Panel("Batches", "ops", ((rate("gateway_event_batches_total", "outcome"), "{{outcome}}"),)),
            Panel(
                "Events nobody will be told",
                "ops",
                (
                    (rate("gateway_events_given_up_total", "why"), "{{why}}"),
                    ("sum(gateway_events_overflow)", "no room"),
                ),
            ),
            Panel("Spans", "ops", ((rate("gateway_spans_total", "outcome"), "{{outcome}}"),)),
            Panel("Log lines", "logs", (('{service_name="gateway"} | event = "session.ended"', ""),), "logs"),
        ),
    ),
}


def written(name: str) -> str:
    """
    Return a dashboard as Grafana reads it.
    """
    title, panels = DASHBOARDS[name]
    return (
        json.dumps(
            {
                "uid": f"gateway-{name}",
                "title": title,
                "tags": ["gateway"],
                "schemaVersion": 39,
                "refresh": "10s",
                "time": {"from": "now-1h", "to": "now"},
                "timezone": "browser",
                "panels": [_panel(number, panel) for number, panel in enumerate(panels)],
            },
            indent=1,
        )
        + "\n"
    )


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    source = {"type": "loki", "uid": "loki"} if panel.kind == "logs" else {"type": "prometheus", "uid": "prometheus"}
    return {
        "id": number + 1,
        "type": panel.kind,
        "title": panel.title,
        "datasource": source,
        "gridPos": {"h": 8, "w": 8, "x": number % 3 * 8, "y": number // 3 * 8},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(65 + place), "datasource": source, "expr": expression, "legendFormat": legend}
            for place, (expression, legend) in enumerate(panel.queries)
        ],
    }


if __name__ == "__main__":
    for each in DASHBOARDS:
        (Path(sys.argv[1]) / f"{each}.json").write_text(written(each), "utf-8")

"""
The boards and alerts that come with the gateway ask for metrics that it has, and every alert leads to a page that helps.

No engine runs the stack here: what can be tried without one is.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Info
from tests.documents.test_operations import ROOT

from gateway.auth.reasons import REASONS
from gateway.console.verbs import VERBS
from gateway.core.problems import CATALOGUE
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.realtime import RealtimeMetrics
from gateway.telemetry.tally import Reading, Tally, Timing

HERE = ROOT / "deploy" / "observability"
RULES: list[dict[str, Any]] = yaml.safe_load((HERE / "alerts.yml").read_text())["groups"][0]["rules"]
COMPOSE: dict[str, Any] = yaml.safe_load((HERE / "docker-compose.yml").read_text())
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
OF_THE_SCRAPE = {"instance", "job", "worker"}
FOREIGN = {
    "up": set[str](),
    "process_open_fds": set(),
    "process_max_fds": set(),
    "process_cpu_seconds_total": set(),
    "process_resident_memory_bytes": set(),
}


def _boards() -> Any:
    spec = importlib.util.spec_from_file_location("dashboards", HERE / "dashboards.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


BOARDS = _boards()


def known() -> dict[str, set[str]]:
    """Every series that can be asked for, with its labels."""
    metrics = Metrics()
    realtime = RealtimeMetrics(metrics.registry, metrics.auth_failures)
    found = dict(FOREIGN)
    for metric in (*vars(metrics).values(), *vars(realtime).values()):
        if isinstance(metric, Timing):
            found |= {f"{metric.name}_{end}": {*metric.labels, "le"} for end in ("bucket", "sum", "count")}
        elif isinstance(metric, Tally) or (isinstance(metric, Reading) and metric.counter):
            found[f"{metric.name}_total"] = set(metric.labels)
        elif isinstance(metric, Reading):
            found[metric.name] = set(metric.labels)
        elif isinstance(metric, Info):
            found["gateway_build_info"] = {"version", "python"}
    return found


KNOWN = known()
_name = re.compile(r"\b(?:gateway|process)_[a-z_]+|\bup\b(?=\{)")
_by = re.compile(r"\bby \(([^)]*)\)")
_match = re.compile(r"([a-z_]+)\s*(?:=~|!=|!~|=)\s*\"")


def asked(expression: str) -> None:
    """Fail for a metric or a label that there is not."""
    names = set(_name.findall(expression))
    assert names, expression
    assert names <= KNOWN.keys(), (expression, names - KNOWN.keys())
    labels = set().union(*(KNOWN[name] for name in names)) | OF_THE_SCRAPE
    used = {label.strip() for group in _by.findall(expression) for label in group.split(",")} | set(
        _match.findall(expression)
    )
    assert used <= labels, (expression, used - labels)


def test_boards_ask_for_what_there_is() -> None:
    """
    Each query of each board names metrics and labels of the gateway, and each legend labels that its query keeps.
    """
    for _, panels in BOARDS.DASHBOARDS.values():
        for panel in panels:
            if panel.kind == "logs":
                continue
            for expression, legend in panel.queries:
                asked(expression)
                kept = {
                    label.strip() for group in _by.findall(expression) for label in group.split(",")
                } | OF_THE_SCRAPE
                assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= kept, (expression, legend)


@pytest.mark.parametrize("name", BOARDS.DASHBOARDS)
def test_boards_are_written(name: str) -> None:
    """
    Grafana's files are what dashboards.py says. Made again by the command at its top.
    """
    text = (HERE / "grafana" / "dashboards" / f"{name}.json").read_text()
    assert text == BOARDS.written(name)
    sources = {
        source["uid"]
        for source in yaml.safe_load((HERE / "grafana/provisioning/datasources/datasources.yaml").read_text())[
            "datasources"
        ]
    }
    assert {panel["datasource"]["uid"] for panel in json.loads(text)["panels"]} <= sources


def test_alerts_lead_to_the_runbook() -> None:
    """
    Each alert asks for what there is, and has a section of its own in the runbook; no section is left over.
    """
    for rule in RULES:
        asked(rule["expr"])
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("page", "ticket")
    sections = [line.removeprefix("## ") for line in RUNBOOK.splitlines() if line.startswith("## Gateway")]
    assert sections == [rule["alert"] for rule in RULES]


def test_metrics_in_the_runbook_exist() -> None:
    """
    What the runbook tells to look at is there: metrics, events of the log, problems, reasons, verbs of the console.
    """
    named = set(re.findall(r"\b(gateway_[a-z_]+)", RUNBOOK))
    assert named
    assert {name for name in named if name not in KNOWN and f"{name}_bucket" not in KNOWN} == set()
    verbs = set(re.findall(r"`gateway ctl ([a-z]+)", RUNBOOK))
    assert verbs
    assert verbs <= VERBS.keys(), verbs - VERBS.keys()
    logs = (ROOT / "docs" / "logs.md").read_text()
    events = set(re.findall(r"`((?:store|keys|worker|upstream|events|gateway|instance)\.[a-z_]+)`", RUNBOOK))
    assert len(events) > 8
    assert {event for event in events if f"`{event}`" not in logs} == set()
    problems = set(re.findall(r"`(upstream_(?!duration)[a-z_]+)`", RUNBOOK))
    assert problems <= CATALOGUE.keys(), problems - CATALOGUE.keys()
    assert set(re.findall(r"`([a-z_]+)`: an issuer changed|`([a-z_]+)`, `issuer_unknown`", RUNBOOK)) == {
        ("key_unknown", ""),
        ("", "signature"),
    }
    assert {"key_unknown", "signature", "issuer_unknown", "expired"} <= REASONS.keys()


def test_rules_are_rules(tmp_path: Path) -> None:
    """
    Prometheus's own tool takes the rules and the configuration, and the alerts fire when they should on made-up series.
    """
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing; on Debian, as root: apt-get install prometheus"
    for file in ("alerts.yml", "alerts_test.yml", "prometheus.yml"):
        shutil.copy(HERE / file, tmp_path)
    config = tmp_path / "prometheus.yml"
    config.write_text(config.read_text().replace("/etc/prometheus/", f"{tmp_path}/"))
    for command in (
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
        ["check", "config", "prometheus.yml"],
    ):
        done = subprocess.run(
            [promtool, *command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_stack_fits_together() -> None:
    """
    Images are pinned, what is mounted is there, and each says something to a port that another listens on, on loopback.
    """
    collector, tempo, loki = (
        yaml.safe_load((HERE / f"{name}.yaml").read_text()) for name in ("collector", "tempo", "loki")
    )
    listens = {"127.0.0.1:9100", "127.0.0.1:9090"}  # the gateway's admin port, Prometheus by its own option
    for receivers in (collector["receivers"], tempo["distributor"]["receivers"]):
        listens |= {each["endpoint"] for each in receivers["otlp"]["protocols"].values()}
    listens |= {
        f"{each['server']['http_listen_address']}:{each['server']['http_listen_port']}" for each in (tempo, loki)
    }
    assert {address.split(":")[0] for address in listens} == {"127.0.0.1"}
    exporters = collector["exporters"].values()
    speaks = {each["endpoint"].removeprefix("http://").split("/")[0] for each in exporters}
    used = [name for pipeline in collector["service"]["pipelines"].values() for name in pipeline["exporters"]]
    assert set(used) == collector["exporters"].keys()
    datasources = (HERE / "grafana/provisioning/datasources/datasources.yaml").read_text()
    speaks |= set(re.findall(r"url: http://([\d.]+:\d+)", datasources))
    speaks |= set(re.findall(r"([\d.]+:\d+)", (HERE / "prometheus.yml").read_text()))
    assert speaks <= listens, speaks - listens
    for name, service in COMPOSE["services"].items():
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"]), name
        assert service["network_mode"] == "host"
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source.startswith("$") or source in COMPOSE["volumes"] or (HERE / source).exists(), volume

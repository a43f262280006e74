"""
``docker-compose.yml`` and what it names, as far as they can be tried without an engine.
"""

from __future__ import annotations

import ipaddress
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.system.dockerfile import ignored, read_dockerfile
from tests.system.installation import ROOT
from tests.system.processes import ask, environment, eventually, run

from demo.ports import free_port
from gateway.config.load import parse
from gateway.config.sections import Config

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
INSTANCES = ("gateway-1", "gateway-2")
DEMO = read_dockerfile(ROOT / "demo" / "Dockerfile")
HAPROXY = ROOT / "deploy" / "haproxy.cfg"


@pytest.fixture
def mounted(tmp_path: Path) -> Config:
    """The configuration of an instance, as it is mounted and with its variables."""
    folder = tmp_path / "etc" / "gateway"
    (folder / "generated").mkdir(parents=True)
    (folder / "generated" / "game.binpb").write_bytes(b"")
    text = (ROOT / "demo" / "gateway.toml").read_text()
    return parse(text, str(folder / "gateway.toml"), SERVICES[INSTANCES[0]]["environment"])


def option(service: str, name: str) -> str:
    """The value of an option of a service's command."""
    words: list[str] = SERVICES[service]["command"]
    return words[words.index(name) + 1]


def places(*addresses: str) -> list[tuple[str, int]]:
    """Split ``HOST:PORT``; each host must be a service."""
    found = [(host, int(port)) for host, _, port in (address.rpartition(":") for address in addresses)]
    assert {host for host, _ in found} <= set(SERVICES), addresses
    return found


def test_what_is_named_is_there() -> None:
    """
    Folders of builds, files that are mounted, volumes and services that others wait for.
    """
    for name, service in SERVICES.items():
        build = service.get("build")
        if build is not None:
            built = {"context": build} if isinstance(build, str) else build
            assert (ROOT / built["context"] / built.get("dockerfile", "Dockerfile")).is_file(), name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (ROOT / source).is_file() if source.startswith(".") else source in COMPOSE["volumes"], volume
        waited = service.get("depends_on", {})
        for other, how in waited.items():
            assert other in SERVICES
            healthy = how["condition"] == "service_healthy"
            # An instance's check stands in its image.
            assert not healthy or "healthcheck" in SERVICES[other] or other in INSTANCES
    assert SERVICES[INSTANCES[0]] == SERVICES[INSTANCES[1]]


def test_variables_are_read_by_somebody() -> None:
    """
    What a service is told in its environment stands in the file that it reads.
    """
    for name, file in (("haproxy", HAPROXY), *((each, ROOT / "demo" / "gateway.toml") for each in INSTANCES)):
        read = set(re.findall(r"\$\{([A-Z0-9_]+)", file.read_text()))
        assert set(SERVICES[name]["environment"]) <= read, name


def test_services_find_each_other(mounted: Config) -> None:
    """
    Names and ports: haproxy to instances, instances to Redis and backends, the game back to the instances.
    """
    clients = int(mounted.listen.clients[0].endpoint.split(":")[1])
    balanced = SERVICES["haproxy"]["environment"]
    assert places(balanced["GATEWAY_1"], balanced["GATEWAY_2"]) == [(name, clients) for name in INSTANCES]
    assert places(*option("game", "--gateway").split(",")) == [
        (name, int((mounted.listen.api or "").split(":")[1])) for name in INSTANCES
    ]
    upstreams = {upstream.name: upstream for upstream in mounted.upstream}
    [(players, players_port)] = places(upstreams["players"].http[0].removeprefix("http://"))
    assert (players, players_port) == ("players", int(option("players", "--port")))
    assert places(upstreams["game"].grpc[0]) == [("game", int(option("game", "--port")))]
    assert places(upstreams["event"].grpc[0]) == [("events", int(option("events", "--port")))]
    assert places(mounted.store.url.removeprefix("redis://")) == [("redis", 6379)]
    # Everybody listens for others, and haproxy is believed.
    assert all("interface=0.0.0.0" in listener.endpoint for listener in mounted.listen.clients)
    assert {option(name, "--host") for name in ("players", "game", "events")} == {"0.0.0.0"}
    subnet = ipaddress.ip_network(COMPOSE["networks"]["default"]["ipam"]["config"][0]["subnet"])
    assert [str(network) for network in mounted.listen.trusted_proxies] == [str(subnet)]


def test_ports_for_the_outside_are_those_listened_on() -> None:
    """
    What is published is where haproxy listens, and the page of sessions, for this machine only; nothing else is published.
    """
    told = SERVICES["haproxy"]["environment"]
    inside = {int(told[name].split(":")[1]) for name in ("HAPROXY_CLIENTS", "HAPROXY_STATS")}
    inside.add(int(option("events", "--page-port")))
    published = [port.split(":") for service in SERVICES.values() for port in service.get("ports", ())]
    assert {int(port) for _, _, port in published} == inside
    assert {address for address, _, _ in published} == {"127.0.0.1"}
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["haproxy", "events"]


def test_a_drain_has_its_time(mounted: Config) -> None:
    """
    The engine waits longer than a drain may take, and a drain begins with more than haproxy needs to notice.
    """
    grace = float(SERVICES[INSTANCES[0]]["stop_grace_period"].removesuffix("s"))
    assert grace > mounted.min_drain_s + mounted.drain_timeout_s
    checks = re.search(r"inter (\d+)ms .*fall (\d+)", HAPROXY.read_text())
    assert checks is not None
    assert mounted.min_drain_s > int(checks[1]) * int(checks[2]) / 1000
    assert mounted.store.lease_s >= 3 * mounted.store.beat_s


def test_haproxy_takes_its_configuration() -> None:
    """
    With the services' names, which nothing resolves here, and with plain addresses; and says so if something is missing.
    """
    told = SERVICES["haproxy"]["environment"]
    assert _checked(told) == 0
    assert _checked({"GATEWAY_1": "127.0.0.1:4001", "GATEWAY_2": "127.0.0.1:4002"}) == 0
    assert _checked({}) != 0


def _checked(told: dict[str, str]) -> int:
    haproxy = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    assert haproxy is not None, "haproxy is missing. As root: apt-get install haproxy"
    code: int = run([haproxy, "-c", "-f", str(HAPROXY)], ROOT, extra=told).returncode
    return code


def test_redis_takes_its_options(tmp_path: Path) -> None:
    """
    The command of the service starts a server that answers, and writes where its volume is.
    """
    port = free_port()
    command = [*SERVICES["redis"]["command"], "--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path)]
    with _running(command, tmp_path), socket.create_connection(("127.0.0.1", _listens(port)), 10) as asking:
        asking.sendall(b"CONFIG GET maxmemory-policy\r\n")
        assert b"noeviction" in asking.recv(1000)
        assert list(tmp_path.glob("appendonlydir/*"))


def test_backends_take_their_options(tmp_path: Path) -> None:
    """
    The commands of the demo's backends serve on the ports that they are told.
    """
    for name in ("players", "game", "events"):
        port = free_port()
        words = [
            word.replace("0.0.0.0", "127.0.0.1").replace("/tmp/", f"{tmp_path}/") for word in SERVICES[name]["command"]
        ]
        words[words.index("--port") + 1] = str(port)
        if name == "events":
            words[words.index("--page-port") + 1] = str(free_port())
        with _running([sys.executable, *words[1:]], ROOT):
            _listens(port)
            if name == "players":
                assert ask(port, "/health").status == 200


def test_image_of_the_backends(tmp_path: Path) -> None:
    """
    What it copies is there and in the context; it exposes the ports that are used; the compiler's step makes what is mounted.
    """
    for source in DEMO.copied():
        assert (ROOT / source).exists(), source
        assert not ignored(source, ROOT / ".dockerignore"), source
    exposed = [word for each in DEMO.of("EXPOSE") for word in each.words]
    backends = [option(name, "--port") for name in ("players", "game", "events")]
    assert exposed == [*backends, option("events", "--page-port")]
    for source in ("protos", "demo"):
        shutil.copytree(ROOT / source, tmp_path / "src" / source, ignore=shutil.ignore_patterns("generated"))
    step = [each.words for each in DEMO.build if each.name == "RUN"][-1]
    assert step[:4] == ["cd", "/src", "&&", "/opt/tools/bin/python"]
    made = run([sys.executable, *step[4:]], tmp_path / "src")
    assert made.returncode == 0, made.stderr
    copied = SERVICES["descriptors"]["command"][1]
    assert (tmp_path / "src" / copied).is_file()
    assert [each.words for each in DEMO.of("WORKDIR")] == [["/srv"]]


@contextmanager
def _running(command: Sequence[str], folder: Path) -> Iterator[None]:
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def _listens(port: int) -> int:
    def look() -> bool:
        socket.create_connection(("127.0.0.1", port), 2).close()
        return True

    eventually("a listener", look)
    return port

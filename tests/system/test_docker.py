"""
The Dockerfile and the unit file, as far as they can be tried without an engine or an init.

The build stage is executed: every test of this folder runs what came out of it.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tests.system.dockerfile import ignored, read_dockerfile
from tests.system.installation import ROOT, Installation
from tests.system.processes import config, environment, eventually, run, running

from gateway.config.load import parse
from gateway.config.sections import Config
from gateway.tap import Options

DOCKERFILE = read_dockerfile(ROOT / "Dockerfile")
UNIT = ROOT / "deploy" / "gateway.service"
FOREIGN = {"PATH", "PYTHONDONTWRITEBYTECODE"}
"""Variables that others read."""


def variables() -> dict[str, str]:
    """Return what ENV sets."""
    return dict(word.split("=", 1) for each in DOCKERFILE.of("ENV") for word in each.words)


def test_what_is_copied_is_there() -> None:
    """
    Every path that COPY takes from the checkout exists, is in git, and is part of the context.
    """
    for source in DOCKERFILE.copied():
        assert (ROOT / source).exists(), source
        assert not ignored(source, ROOT / ".dockerignore"), source


def test_image_takes_what_the_build_made(installed: Installation) -> None:
    """
    The last stage copies the folder that the RUN step of the first one was told to make.
    """
    target = next(each.words[-1] for each in DOCKERFILE.build if each.name == "RUN")
    copied = next(each for each in DOCKERFILE.of("COPY") if each.flags.get("from"))
    assert copied.flags["from"] == DOCKERFILE.build[0].words[-1]
    assert copied.words == [target, target]
    assert str(installed.home).endswith(target)
    assert variables()["PATH"].split(":")[0] == f"{target}/bin"
    # The same interpreter in both stages: the environment's points at it.
    assert DOCKERFILE.build[0].words[0] == DOCKERFILE.of("FROM")[0].words[0]


def test_scripts_are_executable() -> None:
    """
    What RUN calls can be called.
    """
    script = next(each.words[0] for each in DOCKERFILE.build if each.name == "RUN")
    assert os.access(ROOT / script.removeprefix("/src/"), os.X_OK)


def test_variables_are_read_by_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Every variable that is set means something to what runs in the image.
    """
    named = variables()
    assert set(named) - FOREIGN == {"GATEWAY_CONFIG"}
    monkeypatch.setenv("GATEWAY_CONFIG", named["GATEWAY_CONFIG"])
    options = Options()
    options.parseOptions([])
    assert options["config"] == named["GATEWAY_CONFIG"]


def test_ports_are_those_of_the_defaults() -> None:
    """
    EXPOSE, and the healthcheck, name the ports that a configuration has which names none.
    """
    default: Config = parse("", "gateway.toml", {})
    exposed = [int(port) for each in DOCKERFILE.of("EXPOSE") for port in each.words]
    defaults = [listener.endpoint for listener in default.listen.clients] + list(default.listen.admin)
    assert exposed == [int(endpoint.split(":")[1]) for endpoint in defaults]
    check = " ".join(DOCKERFILE.of("HEALTHCHECK")[0].words)
    assert f"http://127.0.0.1:{exposed[0]}/health" in check


def test_it_runs_as_a_plain_user() -> None:
    """
    USER is a number other than 0, and comes before what is started.
    """
    names = [each.name for each in DOCKERFILE.image]
    assert names.index("USER") < names.index("ENTRYPOINT")
    uid, gid = DOCKERFILE.of("USER")[0].words[0].split(":")
    assert int(uid) > 0
    assert int(gid) > 0


def test_healthcheck_tells_the_truth(installed: Installation, twistd: str, tmp_path: Path) -> None:
    """
    Its command succeeds while the gateway answers, and fails otherwise.
    """
    words = DOCKERFILE.of("HEALTHCHECK")[0].words

    def check(port: int) -> int:
        command = [installed.program(words[0]), *(word.replace(":4000/", f":{port}/") for word in words[1:])]
        code: int = run(command, tmp_path).returncode
        return code

    with running(twistd, tmp_path) as served:
        assert check(served.port) == 0
        served.end()
        assert check(served.port) != 0


def test_entrypoint_starts_the_gateway(installed: Installation, tmp_path: Path) -> None:
    """
    The command of the image, with its variables, serves what is mounted where it looks.
    """
    named = variables()
    config(tmp_path)
    mounted = tmp_path / named["GATEWAY_CONFIG"].lstrip("/")
    mounted.parent.mkdir(parents=True)
    (tmp_path / "gateway.toml").rename(mounted)
    words = DOCKERFILE.of("ENTRYPOINT")[0].words
    work = tmp_path / "work"
    work.mkdir()
    process = subprocess.Popen(
        [installed.program(words[0]), *words[1:]],
        cwd=work,
        env=environment(named | {"GATEWAY_CONFIG": str(mounted), "PATH": os.environ["PATH"]}),
        stdin=subprocess.DEVNULL,
        stdout=(tmp_path / "stdout").open("wb"),
    )
    try:
        eventually("its start", lambda: "gateway.started" in (tmp_path / "stdout").read_text())
    finally:
        process.terminate()
        process.wait(40)
    # A container's root can be read-only.
    assert list(work.iterdir()) == []


def test_unit_names_what_exists(installed: Installation) -> None:
    """
    The systemd unit starts a program that the script installs, with options that it has.
    """
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # keys of a unit have their case
    unit.read(UNIT)
    service = unit["Service"]
    program, *words = shlex.split(service["ExecStart"])
    assert Path(installed.program(Path(program).name)).exists()
    assert program.startswith("/opt/gateway/bin/")
    check, *checked = shlex.split(service["ExecStartPre"])
    assert Path(installed.program(Path(check).name)).exists()
    assert checked == ["check", words[words.index("--config") + 1]]
    assert words[: words.index("gateway") + 1] == ["-n", "--pidfile=", "gateway"]
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    # A gateway that drains is given the time to.
    assert int(service["TimeoutStopSec"]) > parse("", "gateway.toml", {}).drain_timeout_s


def test_install_refuses_to_overwrite(tmp_path: Path) -> None:
    """
    The script never writes into a folder that is there.
    """
    (tmp_path / "there").mkdir()
    ended = run([str(ROOT / "deploy" / "install.sh"), str(ROOT), str(tmp_path / "there")], tmp_path)
    assert ended.returncode == 1
    assert "already there" in ended.stderr
    assert run([str(ROOT / "deploy" / "install.sh")], tmp_path).returncode == 2


def test_python_of_the_image_is_supported() -> None:
    """
    The image's Python is one that the package says it runs on.
    """
    image = re.match(r"python:(3\.\d+)-", DOCKERFILE.build[0].words[0])
    assert image
    assert f'"Programming Language :: Python :: {image[1]}"' in (ROOT / "pyproject.toml").read_text()
    assert sys.version_info >= (3, 11)

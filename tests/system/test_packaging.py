"""
What the wheel is: what it holds and what it demands.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from tests.system.installation import ROOT, Installation

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements(texts: list[str]) -> dict[str, Requirement]:
    """Return requirements by their distribution's name."""
    return {canonicalize_name(each.name): each for each in map(Requirement, texts)}


NEEDED = requirements(PROJECT["dependencies"])
FOR_DEVELOPMENT = NEEDED | requirements(PROJECT["optional-dependencies"]["dev"])


def test_generated_code_runs_with_the_oldest_that_is_allowed(installed: Installation) -> None:
    """
    What the compiler of protos made asks for no newer protobuf or grpcio than the wheel does.
    """
    least = {
        name: min(Version(each.version) for each in NEEDED[name].specifier if each.operator == ">=")
        for name in ("protobuf", "grpcio")
    }
    made = list((installed.packages / "gateway" / "protos").rglob("*_pb2*.py"))
    assert made
    for path in made:
        text = path.read_text()
        for pattern, name in (
            (r"^# Protobuf Python Version: (\S+)", "protobuf"),
            (r"^GRPC_GENERATED_VERSION = '(.+)'", "grpcio"),
        ):
            for found in re.findall(pattern, text, re.MULTILINE):
                assert Version(found) <= least[name], path


def test_wheel_claims_no_other_names(installed: Installation) -> None:
    """
    It brings ``gateway``, one module beside Twisted's plugins, and nothing else; all that is in ``src`` is in it.
    """
    record = next(installed.packages.glob("twistd_gateway-*.dist-info/RECORD")).read_text().splitlines()
    files = {line.partition(",")[0] for line in record}
    outside = {path for path in files if not path.startswith(("gateway/", "twistd_gateway-", "../"))}
    assert {path for path in outside if not path.endswith(".pyc")} == {"twisted/plugins/gateway_plugin.py"}
    for source in (installed.source / "src" / "gateway").rglob("*"):
        if source.is_file() and "__pycache__" not in source.parts:
            assert str(source.relative_to(installed.source / "src")) in files
    assert "gateway/py.typed" in files


def test_constraints_fit_the_ranges() -> None:
    """
    The versions that were tested together are ones that the ranges allow, and there is one for each dependency.
    """
    pinned = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
    )
    versions: dict[str, str] = {canonicalize_name(name): version for name, version in pinned.items()}
    for name, requirement in FOR_DEVELOPMENT.items():
        if name != "setuptools":
            assert requirement.specifier.contains(versions[name], prereleases=True), requirement

"""
What docs/server-api.md shows is what happens: its configuration is run, its examples too, in their order.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.system.processes import Running, environment, running

from demo.ports import free_port
from gateway.core.verdicts import ErrorCode
from gateway.node.orders import ORDERS
from gateway.protos.gateway.v1 import api_pb2

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "server-api.md").read_text("utf-8")
TWISTD = str(Path(sys.executable).with_name("twistd"))
KEYS = {
    "JWT_SECRET": "a-secret-of-the-page-for-its-tokens",
    "ADMIN_KEY": "a-key-of-the-page-for-everything",
    "GAME_ADMIN_KEY": "a-key-of-the-page-for-the-game",
}

_config = re.compile(r"^```toml\n(.*?)^```", re.DOTALL | re.MULTILINE)
_example = re.compile(r"^```(sh|python)\n((?:(?!```).*\n)+)```\n```json\n((?:(?!```).*\n)+)```", re.MULTILINE)
_row = re.compile(r"^\| `([a-z_]+)` \| (?:`([a-z]+)`|those of its commands) \| (.*?) \|", re.MULTILINE)
_error = re.compile(r"^\| (\d{3}) \| ([a-z ]+) \|", re.MULTILINE)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    (text,) = _config.findall(PAGE)
    port = free_port()
    body = text[text.index("[upstream") :]
    folder = tmp_path_factory.mktemp("page")
    with running(TWISTD, folder, body, extra=KEYS, listen=f'api = "127.0.0.1:{port}"') as process:
        process.api = port
        yield process


def spoken(text: str) -> list[Any]:
    """JSON values that stand one after the other, with or without lines between."""
    found, at = [], 0
    decoder = json.JSONDecoder()
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        value, at = decoder.raw_decode(text, at)
        found.append(value)
    return found


def told(shown: Any, said: Any) -> Any:
    """What was said, with an ellipsis where the page has one."""
    if shown == "…":
        return shown
    if isinstance(shown, dict) and isinstance(said, dict):
        return {name: told(shown.get(name), value) for name, value in said.items()}
    if isinstance(shown, list) and isinstance(said, list) and len(shown) == len(said):
        return [told(*pair) for pair in zip(shown, said, strict=True)]
    return said


def test_the_examples(gateway: Running) -> None:
    """
    Each example, run after those before it, says what the page says that it says.
    """
    examples = _example.findall(PAGE)
    assert len(examples) >= 6
    for kind, text, shown in examples:
        program = text.replace(":9100", f":{gateway.admin}").replace(":10000", f":{gateway.api}")
        command = ["bash", "-euc", program] if kind == "sh" else [sys.executable, "-c", program]
        environ = environment({**KEYS, "PYTHONPATH": str(ROOT / "src")})
        ran = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=True)
        said = spoken(ran.stdout) if kind == "sh" else [ran.stdout.strip()]
        assert [told(*pair) for pair in zip(spoken(shown), said, strict=True)] == spoken(shown), text


def test_the_table_of_operations() -> None:
    """
    Every operation has a row with its scope and every parameter of it.
    """
    rows = {name: (scope, parameters) for name, scope, parameters in _row.findall(PAGE)}
    assert {name: scope for name, (scope, _) in rows.items()} == {name: scope for name, (_, scope) in ORDERS.items()}
    methods = api_pb2.DESCRIPTOR.services_by_name["GatewayApi"].methods_by_name
    for name, (_, shown) in rows.items():
        parameters = shown + rows["publish"][1] if shown.endswith("and as above") else shown
        for field in methods["".join(part.title() for part in name.split("_"))].input_type.fields:
            assert re.search(rf"\b{field.name}\b", parameters), (name, field.name)


def test_the_table_of_errors() -> None:
    """
    The codes and their messages are those of the table of verdicts.
    """
    assert dict(_error.findall(PAGE)).items() <= {str(each.code): each.text for each in ErrorCode}.items()
    assert len(_error.findall(PAGE)) == 8

"""
What is published about the configuration is what the code does.
"""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from gateway.config.checks.routes import BUILT_IN, REQUEST_ROOTS
from gateway.config.load import parse
from gateway.config.reference import with_reference
from gateway.config.schema import json_schema
from gateway.node.rules import ROOTS
from gateway.web.health import HEALTH_PATHS, READY_PATHS

ROOT = Path(__file__).resolve().parents[2]
BAD = Path(__file__).parent / "bad"

ENVIRON = {
    name: f"correct-horse-battery-staple-{name}"
    for name in ("JWT_SECRET", "GAME_ADMIN_KEY", "ADMIN_KEY", "REDIS_PASSWORD", "PRIVACY_KEY")
}
"""What the examples take from the environment."""

_block = re.compile(r"^```toml[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_file = re.compile(r'"([A-Za-z0-9_/.-]+\.(?:pem|json|jsonl|binpb|toml))"')


def blocks() -> list[Any]:
    """Every TOML block of the documentation, with the line where it begins."""
    found = []
    for document in sorted([*(ROOT / "docs").glob("**/*.md"), *ROOT.glob("README.md")]):
        text = document.read_text("utf-8")
        for match in _block.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(pytest.param(match[1], id=f"{document.relative_to(ROOT)}:{line}"))
    return found


@pytest.mark.parametrize("text", blocks())
def test_every_toml_block_is_a_sound_configuration(text: str, tmp_path: Path) -> None:
    """
    What the documentation shows can be used as it is, given the files and variables that it names.
    """
    for name in _file.findall(text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    parse(text, str(tmp_path / "gateway.toml"), ENVIRON)


@pytest.mark.parametrize("text", blocks())
def test_the_schema_takes_every_toml_block(text: str) -> None:
    """
    An editor does not complain about what the gateway takes.
    """
    validator = jsonschema_rs.validator_for(json_schema())
    assert [error.message for error in validator.iter_errors(tomllib.loads(text))] == []


@pytest.mark.parametrize(
    "name", ["unknown_keys", "unknown_top_level", "wrong_types", "tables_and_arrays", "durations", "ranges", "choices"]
)
def test_the_schema_refuses_what_it_can_see(name: str) -> None:
    """
    Unknown keys, wrong types, units and ranges are seen by editors, too.
    """
    raw = tomllib.loads((BAD / f"{name}.toml").read_text())
    assert not jsonschema_rs.is_valid(json_schema(), raw)


def test_the_published_schema_is_the_code_s() -> None:
    """
    Made again by: gateway schema > docs/config.schema.json.
    """
    assert json.loads((ROOT / "docs" / "config.schema.json").read_text("utf-8")) == json_schema()


def test_the_published_reference_is_the_code_s() -> None:
    """
    Made again by: python -m gateway.config.reference docs/configuration.md.
    """
    document = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    assert document == with_reference(document)


def test_a_document_without_the_mark_is_refused() -> None:
    """
    The reference is never written into a document that does not expect it.
    """
    with pytest.raises(ValueError, match="no line"):
        with_reference("# Something else")


def test_paths_and_names_that_other_rooms_answer_for() -> None:
    """
    The paths that routes must leave alone, and the names that rules may use, are those that are served.
    """
    assert set(BUILT_IN) == {*HEALTH_PATHS, *READY_PATHS}
    assert REQUEST_ROOTS == ROOTS

"""
Compiling the test protos, and reading the tables of cases.
"""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

from google.api import http_pb2
from google.protobuf import text_format
from google.protobuf.message import Message
from grpc_tools import protoc

from gateway.upstream.descriptors import Schema, schema_from_set

CASES = Path(__file__).resolve().parent / "cases"
PROTOS = Path(__file__).resolve().parents[2] / "protos"


def compile_protos(folder: Path, *names: str, imports: bool = True) -> bytes:
    """
    Compile files of ``tests/protos`` with protoc; returns the serialised descriptor set.
    """
    made = folder / "set.binpb"
    includes = [str(PROTOS), str(files("grpc_tools") / "_proto"), str(Path(http_pb2.__file__).parents[2])]
    options = [f"-I{path}" for path in includes] + ["--include_imports"] * imports
    assert protoc.main(["protoc", *options, f"--descriptor_set_out={made}", *names]) == 0
    return made.read_bytes()


def schema(folder: Path) -> Schema:
    """
    All protos for transcoding in one pool.
    """
    names = sorted(str(path.relative_to(PROTOS)) for path in (PROTOS / "transcoding").glob("*.proto"))
    return schema_from_set(compile_protos(folder, *names))


def cases(name: str) -> list[dict[str, Any]]:
    """
    Read a table: each ``[[case]]`` on top of its file's ``[defaults]``.
    """
    text = (CASES / f"{name}.toml").read_text()
    # ``@5000@`` stands for so many zeros.
    table = tomllib.loads(re.sub(r"@(\d+)@", lambda found: "0" * int(found[1]), text))
    return [{**table.get("defaults", {}), **case, "table": name} for case in table["case"]]


def titled(case: dict[str, Any]) -> str:
    """
    The id of a case.
    """
    return f"{case['table']}: {case['name']}"


def from_text(kind: type[Message], text: str, schema: Schema) -> Message:
    """
    Make a message of protobuf's own text format.
    """
    return text_format.Parse(text, kind(), descriptor_pool=schema.pool)

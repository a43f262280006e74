"""
What a client hears of a call that failed.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import text_format
from google.rpc import code_pb2, error_details_pb2, status_pb2
from tests.core.transcoding.support import cases, titled

from gateway.core.problems import CATALOGUE, problem_body
from gateway.core.transcoding.status import LOCAL, NAMES, http_status, problem_of
from gateway.upstream.descriptors import Schema

assert error_details_pb2  # Registers the types that the table's details are written with.


@pytest.mark.parametrize("case", cases("status"), ids=titled)
def test_failed_call(case: dict[str, Any], schema: Schema) -> None:
    """
    A failed call becomes the problem that is written down for it, and nothing more is told.
    """
    details = bytes.fromhex(case.get("details_hex", ""))
    if "details" in case:
        details = text_format.Parse(case["details"], status_pb2.Status()).SerializeToString()
    problem = problem_of(
        case["code"],
        case.get("message", ""),
        details=details,
        encoders=schema.codecs.encoders(),
        **case.get("options", {}),
    )
    assert (problem.kind.code, problem.kind.status) == (case["kind"], case["status"])
    assert problem.detail == case.get("detail", "")
    assert {name.decode(): value.decode() for name, value in problem.headers} == case.get("headers", {})
    assert (problem.extra or {}) == json.loads(case.get("extra", "{}"))
    body = problem_body(problem)
    assert b"secret" not in body
    assert json.loads(body)["status"] == case["status"]


def test_every_status_has_its_kind() -> None:
    """
    The names are gRPC's own, each has a kind, and a number that gRPC does not have is 500.
    """
    assert {name.lower(): number for number, name in enumerate(NAMES)} == {
        name.lower(): number for name, number in code_pb2.Code.items()
    }
    assert all(f"grpc_{name}" in CATALOGUE for name in NAMES[1:])
    assert set(LOCAL.values()) <= set(CATALOGUE)
    assert [http_status(code) for code in (0, 1, 5, 8, 16, 17, -1, 999)] == [200, 499, 404, 429, 401, 500, 500, 500]

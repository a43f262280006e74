"""
Requests to messages, from the tables in ``cases``: request, mapping, and the message or the refusal.

Expected messages are written in protobuf's text format and made by protobuf.
"""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import text_format
from tests.core.transcoding.support import cases, from_text, titled

from gateway.core.path import canonical
from gateway.core.problems import Problem, problem_body
from gateway.core.routes import Entry, RouteTable
from gateway.core.transcoding.binding import Binding, RequestOptions
from gateway.core.transcoding.rejection import Rejected
from gateway.core.transcoding.rules import BadRule, mapped, service_bindings
from gateway.upstream.descriptors import Schema

TABLES = ("scalars", "members", "known", "query", "path", "body", "assigned", "library")


def options_of(case: dict[str, Any]) -> RequestOptions:
    """The options of a case; lists become tuples."""
    given: dict[str, Any] = case.get("options", {})
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return RequestOptions(**given)


def bindings_of(case: dict[str, Any], schema: Schema) -> list[Binding]:
    """Compile the mapping of a case: a service's annotations, or what the case states itself."""
    set_fields = case.get("set_fields", list(case.get("set", {})))
    options = options_of(case)
    if "service" in case:
        return service_bindings(schema.service(case["service"]), schema.codecs, set_fields=set_fields, options=options)
    return [
        mapped(
            schema.method(case["call"]).descriptor,
            schema.codecs,
            path=case["path"],
            methods=case.get("methods", []),
            body=case.get("takes", ""),
            response_body=case.get("response_body", ""),
            set_fields=set_fields,
            unbound=case.get("unbound", []),
            options=options,
            where="the case",
        )
    ]


@pytest.mark.parametrize("case", [case for table in TABLES for case in cases(table)], ids=titled)
def test_request(case: dict[str, Any], schema: Schema) -> None:
    """
    A request makes the message that is written down for it, or is refused for the reasons written down.
    """
    bindings = bindings_of(case, schema)
    table = RouteTable(
        [Entry(binding.rule.path, binding.rule.methods, binding, encoded_slash=True) for binding in bindings]
    )
    method, _, uri = case["request"].partition(" ")
    target = canonical(uri.encode())
    match = table.match(target, method.encode())
    binding = match.value
    if "reaches" in case:
        assert binding.call.rpartition("/")[2] == case["reaches"]
    body = bytes.fromhex(case["hex"]) if "hex" in case else case.get("body", "").encode()
    content_type = case.get("type", "application/json" if body else "").encode()

    def call() -> Any:
        return binding.message(match.params, target.query, body, content_type, case.get("set"))

    if "problem" in case:
        with pytest.raises(Problem) as caught:
            call()
        assert caught.value.kind.code == case["problem"]
    elif "refused" in case:
        with pytest.raises(Rejected) as rejected:
            call()
        violations = rejected.value.violations
        assert [[violation.source, violation.path] for violation in violations] == [row[:2] for row in case["refused"]]
        for violation, (_, _, words) in zip(violations, case["refused"], strict=True):
            assert words in violation.message
        assert b'"errors":[{' in problem_body(rejected.value)
    else:
        made = call()
        expected = from_text(type(made), case["message"], schema)
        assert text_format.MessageToString(made) == text_format.MessageToString(expected)
        assert made == expected


@pytest.mark.parametrize("case", cases("rules"), ids=titled)
def test_impossible_rule(case: dict[str, Any], schema: Schema) -> None:
    """
    A rule that does not fit its method is refused when it is read, with the reason.
    """
    with pytest.raises(BadRule) as bad:
        bindings_of(case, schema)
    assert case["bad"] in bad.value.what
    assert bad.value.where == case.get("where", "the case")


def test_tables_are_large_enough() -> None:
    """
    There are some hundreds of cases, and many of them are refusals.
    """
    every = [case for table in (*TABLES, "rules", "encode") for case in cases(table)]
    refusals = [case for case in every if {"refused", "problem", "bad", "unwritable"} & case.keys()]
    assert len(every) >= 250
    assert len(refusals) >= 100
    names = [titled(case) for case in every]
    assert len(set(names)) == len(names)

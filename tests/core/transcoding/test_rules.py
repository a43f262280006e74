"""
Mounting services and calls that have no path.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.core.transcoding.support import compile_protos

from gateway.core.transcoding.http_rule import HttpRule, annotated
from gateway.core.transcoding.rejection import Rejected
from gateway.core.transcoding.rules import BadRule, direct, service_bindings
from gateway.upstream.descriptors import Schema, schema_from_set


def test_annotations_are_read_with_their_additional_bindings(schema: Schema) -> None:
    """
    The rules of a method come in order; a method without annotation has none.
    """
    assert annotated(schema.method("test.library.v1.Library/GetBook").descriptor) == [
        HttpRule("/v1/{name=shelves/*/books/*}", frozenset((b"GET",))),
        HttpRule("/v1/books/{name}", frozenset((b"GET",))),
        HttpRule("/v1/any/{name=**}", frozenset()),
    ]
    assert annotated(schema.method("test.library.v1.Library/ListOnly").descriptor)[0].response_body == "books"
    assert annotated(schema.method("test.library.v1.Library/Internal").descriptor) == []


def test_annotations_are_found_where_the_set_brings_its_own_http_proto(tmp_path: Path) -> None:
    """
    Whether google/api/annotations.proto is in the set or not, the rules are found.
    """
    for imports in (True, False):
        made = schema_from_set(compile_protos(tmp_path, "transcoding/library.proto", imports=imports))
        bindings = service_bindings(made.service("test.library.v1.Library"), made.codecs)
        assert len(bindings) == 15
        assert {binding.call for binding in bindings} >= {"/test.library.v1.Library/GetBook"}


def test_every_bad_rule_of_a_service_is_told(schema: Schema) -> None:
    """
    With a list for them, all bad rules are collected, and the good ones compiled.
    """
    faults: list[BadRule] = []
    bindings = service_bindings(
        schema.service("test.library.v1.Broken"), schema.codecs, set_fields=["nope"], faults=faults
    )
    assert bindings == []
    assert [fault.where.rpartition("/")[2] for fault in faults] == [
        "Nested",
        "NoPattern",
        "BadKind",
        "Feed",
        "NoField",
        "NoResponseField",
        "library.proto, test.library.v1.Broken",
    ]


def test_call_without_a_path(schema: Schema) -> None:
    """
    A command's data is the whole request; what the gateway sets stays closed to it.
    """
    method = schema.method("test.library.v1.Library/MoveBook").descriptor
    binding = direct(method, schema.codecs, set_fields=["user_id"], where="rpc.move")
    made: Any = binding.message({}, b"", b'{"name": "b1"}', b"application/json", {"user_id": "alice"})
    assert (made.name, made.user_id) == ("b1", "alice")
    only_set: Any = binding.message({}, set_values={"user_id": "alice"})
    assert only_set.user_id == "alice"
    with pytest.raises(Rejected, match="userId: cannot be given by a client"):
        binding.message({}, b"", b'{"userId": "eve"}', b"application/json", {"user_id": "alice"})
    with pytest.raises(BadRule, match=r"rpc\.move: set 'owner'"):
        direct(method, schema.codecs, set_fields=["owner"], where="rpc.move")


def test_forgotten_value_of_a_set_field_is_no_empty_value(schema: Schema) -> None:
    """
    A call without the value of a field that is set fails, rather than being made without it; None leaves it unset.
    """
    binding = direct(
        schema.method("test.library.v1.Library/MoveBook").descriptor, schema.codecs, set_fields=["user_id"]
    )
    with pytest.raises(KeyError):
        binding.message({})
    unset: Any = binding.message({}, set_values={"user_id": None})
    assert unset.user_id == ""


def test_parameter_names_are_not_remembered_without_bound(schema: Schema) -> None:
    """
    Names that clients make up do not fill the memory.
    """
    method = schema.method("test.library.v1.Library/ListBooks").descriptor
    (binding,) = [
        binding
        for binding in service_bindings(schema.service("test.library.v1.Library"), schema.codecs)
        if binding.method is method
    ]
    for number in range(1000):
        with pytest.raises(Rejected):
            binding.message({"parent": "p"}, b"made_up_%d=1" % number)
    assert len(binding._query._known) <= 512


def test_requests_by_chance_are_read_or_refused(schema: Schema) -> None:
    """
    Whatever stands in path, query and body, a message comes out that can be sent, or a refusal.
    """
    random = Random(7)
    library = service_bindings(schema.service("test.library.v1.Library"), schema.codecs, set_fields=["user_id"])
    words = ["", *"filter title not author name book tags since limit labels x update_mask".split()]  # noqa: SIM905
    texts = ["", "\x00", *"a 1 true 2026-01-01T00:00:00Z 1s %2F %zz %ff % + = & é PROSE".split()]  # noqa: SIM905
    bodies = [b"", b"\xff", *b'{} [] null 1 "x" {"name":1} {"title":"x"} {"userId":1} {"a":'.split()]
    made = 0
    for _ in range(20000):
        binding = random.choice(library)
        names = [variable.name for variable in binding.template.variables] if binding.template else []
        params = {name: random.choice(texts) for name in names}
        pairs = [
            ".".join(random.choices(words, k=random.randrange(1, 4))) + "=" + random.choice(texts)
            for _ in range(random.randrange(3))
        ]
        query = "&".join(pairs).encode()
        try:
            message = binding.message(
                params, query, random.choice(bodies), b"application/json", dict.fromkeys(binding.set_fields, "alice")
            )
        except Rejected:
            continue
        made += 1
        message.SerializeToString()
        if binding.set_fields:
            assert message.user_id == "alice"  # type: ignore[attr-defined]
    assert made > 1000

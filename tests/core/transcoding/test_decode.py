"""
What is read: everything that json_format writes, and nothing that it would read otherwise.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass
from tests.core.transcoding.random_messages import RandomMessages

from gateway.core.transcoding.json_text import read_json
from gateway.core.transcoding.rejection import MOST_VIOLATIONS, Rejected
from gateway.upstream.descriptors import Schema

TYPES = [f"test.v1.{name}" for name in ("Scalars", "Optionals", "Lists", "Maps", "Known", "Tree", "Choice", "Names")]
TYPES += ["test.v1.Everything", "test.legacy.Legacy", "test.legacy.Strict", "test.editions.Modern"]

STRANGE: list[Any] = [
    *(None, True, False, 0, 1, -1, 1.0, 1.5, 1e3, 2**31, 2**63, 2**64, -(2**63), 1e300, 2.0**60, 3.5e38),
    *("", "1", "-1", "1.0", "1e2", "1.5", "007", "+5", " 5", "1_0", "NaN", "Infinity", "nan", "inf", "true", "RED"),
    *("CRIMSON", "PURPLE", "aGk=", "aGk", "a-_/", "!!", "2026-01-01T00:00:00Z", "1s", "-0.5s", "a,bC", "a_b"),
    *([], {}, [[]], [None], {"": 0}, {"a": 1}, {"true": "x"}, {"1": "1"}, ["RED", "PURPLE"], [{}], {"value": 1}),
    {"@type": "type.googleapis.com/test.v1.Scalars", "anInt32": 1},
]


@pytest.mark.parametrize("kind", TYPES)
def test_reads_what_json_format_writes(kind: str, schema: Schema) -> None:
    """
    A message comes back from its JSON, by proto or JSON names, enums by name or number, presence included.
    """
    descriptor = schema.pool.FindMessageTypeByName(kind)
    decode = schema.codecs.decoders().decoder(descriptor)
    for seed in range(80):
        message: Any = RandomMessages(seed, schema.pool).message(descriptor)
        text = json_format.MessageToJson(
            message,
            indent=seed % 3 or None,
            preserving_proto_field_name=seed % 2 == 0,
            use_integers_for_enums=seed % 5 == 0,
            unquote_int64_if_possible=seed % 4 == 0,
            ensure_ascii=seed % 7 == 0,
            descriptor_pool=schema.pool,
        )
        read = decode(text.encode())
        # Bytes within an Any depend on the order of maps, so messages are compared as JSON as well.
        assert read == message or json_format.MessageToDict(
            read, descriptor_pool=schema.pool
        ) == json_format.MessageToDict(message, descriptor_pool=schema.pool)


@pytest.mark.parametrize("ignore_unknown", [False, True])
@pytest.mark.parametrize("kind", TYPES)
def test_accepts_nothing_that_json_format_reads_otherwise(kind: str, ignore_unknown: bool, schema: Schema) -> None:
    """
    JSON with values, names and members changed by chance is refused, or read as json_format reads it.
    """
    descriptor = schema.pool.FindMessageTypeByName(kind)
    decode = schema.codecs.decoders(ignore_unknown=ignore_unknown).decoder(descriptor)
    message_class = GetMessageClass(descriptor)
    accepted = 0
    for seed in range(250):
        random = Random(seed)
        message: Any = RandomMessages(seed, schema.pool, depth=2).message(descriptor)
        value = json_format.MessageToDict(message, descriptor_pool=schema.pool)
        for _ in range(random.randrange(1, 3)):
            value = changed(value, random)
        text = json.dumps(value, ensure_ascii=False).encode()
        try:
            ours = decode(text)
        except Rejected as rejected:
            assert 1 <= len(rejected.violations) <= MOST_VIOLATIONS  # noqa: PT017
            continue
        accepted += 1
        theirs: Any = message_class()
        try:
            json_format.Parse(text, theirs, ignore_unknown_fields=ignore_unknown, descriptor_pool=schema.pool)
        except json_format.ParseError as error:
            # It trips over null for a list of Values, which is an absent list.
            assert "AttributeError" in str(error)  # noqa: PT017
        else:
            assert ours == theirs, text
    assert accepted > 10


def changed(value: Any, random: Random) -> Any:
    """Change one place of a JSON value."""
    if not isinstance(value, (dict, list)) or not value or random.random() < 0.2:
        return random.choice(STRANGE)
    if isinstance(value, list):
        at = random.randrange(len(value))
        return [*value[:at], changed(value[at], random), *value[at + 1 :]]
    name = random.choice(list(value))
    if random.random() < 0.1:
        return {**value, random.choice(["unknown", name.lower(), name.title()]): value[name]}
    return {**value, name: changed(value[name], random)}


def test_never_fails_but_by_refusing(schema: Schema) -> None:
    """
    Bytes by chance, near to JSON, are refused or read: nothing else comes out, and no name of Python's.
    """
    decode = schema.codecs.decoders().decoder(schema.pool.FindMessageTypeByName("test.v1.Everything"))
    random = Random(11)
    pieces = [
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b'"scalars"',
        b'"known"',
        b'"struct"',
        b'"',
        b"1",
        b"-",
        b"e9",
        b"null",
    ]
    pieces += [
        b"\\u",
        b"\\ud800",
        b"\xff",
        b" ",
        b"NaN",
        b"true",
        b'"any"',
        b'"@type"',
        b"\x00",
        b"9" * 5000,
        b"[" * 200,
    ]
    for _ in range(20000):
        text = b"".join(random.choices(pieces, k=random.randrange(1, 12)))
        try:
            decode(text)
        except Rejected as rejected:
            for violation in rejected.violations:
                said = violation.message.lower()
                assert not any(word in said for word in ("traceback", "nonetype", "<class", "codec", "digits)")), said
                assert len(violation.path) < 500
                assert len(violation.message) < 200


def test_counts_members_however_colons_stand() -> None:
    """
    Colons in strings, escaped or not, neither hide a member that stands twice nor make one up.
    """
    random = Random(5)
    bits = [":", '\\":', "\\\\", "\\u003a", '\\"', "x", "::", "{", '":'.replace('"', '\\"')]
    for _ in range(3000):
        names = [f"{''.join(random.choices(bits, k=random.randrange(4)))}{n}" for n in range(3)]
        twice = random.random() < 0.5
        chosen = [*names, random.choice(names)] if twice else names
        members = [f'"{name}" : "{"".join(random.choices(bits, k=3))}"' for name in chosen]
        text = ('{"o":{' + ",".join(members) + "}}").encode()
        if twice:
            with pytest.raises(Rejected, match="stands twice"):
                read_json(text)
        else:
            assert read_json(text) == json.loads(text)


def deep(shape: str, levels: int) -> str:
    """JSON of one shape, so many messages, structs or lists within each other."""
    opening, closing, innermost = {
        "messages": ('{"left":', "}", "{}"),
        "lists of messages": ('{"children":[', "]}", "{}"),
        "maps of messages": ('{"named":{"k":', "}}", "{}"),
        "structs": ('{"a":', "}", "{}"),
        "lists of values": ("[", "]", "[]"),
    }[shape]
    return opening * levels + innermost + closing * levels


@pytest.mark.parametrize(
    ("shape", "kind", "around"),
    [
        ("messages", "test.v1.Tree", "%s"),
        ("lists of messages", "test.v1.Tree", "%s"),
        ("maps of messages", "test.v1.Tree", "%s"),
        ("structs", "test.v1.Known", '{"struct":%s}'),
        ("lists of values", "test.v1.Known", '{"value":%s}'),
    ],
)
def test_depth_is_bounded_where_others_bound_it(shape: str, kind: str, around: str, schema: Schema) -> None:
    """
    Nesting is refused before the message would be one that the default limits of protobuf do not read.
    """
    descriptor = schema.pool.FindMessageTypeByName(kind)
    decode = schema.codecs.decoders().decoder(descriptor)
    for levels in range(1, 120):
        try:
            made = decode((around % deep(shape, levels)).encode())
        except Rejected as rejected:
            assert "nested" in str(rejected)  # noqa: PT017
            break
        assert GetMessageClass(descriptor).FromString(made.SerializeToString()) == made
        assert schema.codecs.encoders().json(descriptor)(made)
    assert levels >= 32
    with pytest.raises(Rejected, match="nested deeper than 100"):
        decode((around % deep(shape, 5000)).encode())


def test_number_of_values_is_bounded() -> None:
    """
    As many values as are allowed are read, and what is in strings does not count.
    """
    assert len(read_json(b"[" + b",".join([b"1"] * 100) + b"]", most=100)) == 100
    assert read_json(b'{"a":"' + b"[{," * 1000 + b'"}', most=100)
    for text in (b"[" + b"1," * 100 + b"1]", b"[" + b"{}," * 50 + b"{}]", b"[[[" * 40 + b"]]]" * 40):
        with pytest.raises(Rejected, match="holds more than 100 values"):
            read_json(text, most=100)


def test_large_bodies_are_read_in_linear_time() -> None:
    """
    A megabyte of nearly nothing but escapes and colons is no work for seconds.
    """
    for text in (b'{"a":"' + b'\\":' * 300_000 + b'"}', b'{"a":"' + b"\\\\" * 500_000 + b'"}', b'["' + b"a:" * 400_000):
        try:
            read_json(text)
        except Rejected:
            pass

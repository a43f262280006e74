"""
What is written equals what protobuf's own json_format writes.
"""

from __future__ import annotations

import json
from itertools import product
from typing import Any, Literal

import pytest
from google.protobuf import json_format
from tests.core.transcoding.random_messages import RandomMessages
from tests.core.transcoding.support import cases, from_text, titled

from gateway.core.transcoding.encode import JsonStyle, Unwritable
from gateway.upstream.descriptors import Schema

YES_NO = (False, True)
INT64: tuple[Literal["string", "number", "safe"], ...] = ("string", "number", "safe")
STYLES = [JsonStyle(*options) for options in product(YES_NO, YES_NO, YES_NO, INT64, YES_NO)]
TYPES = [f"test.v1.{name}" for name in ("Scalars", "Optionals", "Lists", "Maps", "Known", "Tree", "Choice", "Names")]
TYPES += ["test.v1.Everything", "test.legacy.Legacy", "test.legacy.Strict", "test.editions.Modern"]


def reference(message: Any, style: JsonStyle, schema: Schema) -> Any:
    """
    Protobuf's JSON; it has no nulls for what is absent, and no style that always writes int64 as numbers.
    """
    return json_format.MessageToDict(
        message,
        always_print_fields_with_no_presence=style.defaults,
        preserving_proto_field_name=style.proto_names,
        use_integers_for_enums=style.enum_numbers,
        descriptor_pool=schema.pool,
        unquote_int64_if_possible=style.int64 == "safe",
    )


def agrees(ours: Any, theirs: Any, style: JsonStyle) -> bool:
    """Compare, but for the two styles that json_format does not have."""
    if isinstance(theirs, dict):
        if style.nulls:
            ours = {name: value for name, value in ours.items() if name in theirs or value is not None}
        return ours.keys() == theirs.keys() and all(agrees(ours[name], theirs[name], style) for name in theirs)
    if isinstance(theirs, list):
        return len(ours) == len(theirs) and all(agrees(*pair, style) for pair in zip(ours, theirs, strict=True))
    if style.int64 == "number" and isinstance(ours, int) and isinstance(theirs, str):
        return str(ours) == theirs
    return type(ours) is type(theirs) and bool(ours == theirs)


@pytest.mark.parametrize("kind", TYPES)
def test_equals_json_format(kind: str, schema: Schema) -> None:
    """
    Messages of every type, in every combination of options, are written as json_format writes them.
    """
    descriptor = schema.pool.FindMessageTypeByName(kind)
    for seed in range(len(STYLES) * 2):
        style = STYLES[seed % len(STYLES)]
        message: Any = RandomMessages(seed, schema.pool, nan=True).message(descriptor)
        ours = schema.codecs.encoders(style).builtins(descriptor)(message)
        theirs = reference(message, style, schema)
        assert agrees(ours, theirs, style), (style, message)
        if not style.nulls and style.int64 != "number":
            assert ours == theirs
        text = schema.codecs.encoders(style).json(descriptor)(message)
        assert json.loads(text) == json.loads(json.dumps(ours))


@pytest.mark.parametrize("case", cases("encode"), ids=titled)
def test_written_as_stated(case: dict[str, Any], schema: Schema) -> None:
    """
    A message in a style is the JSON that is written down for it, or is refused.
    """
    descriptor = schema.pool.FindMessageTypeByName(case["type"])
    from google.protobuf.message_factory import GetMessageClass

    message = from_text(GetMessageClass(descriptor), case["message"], schema)
    write = schema.codecs.encoders(JsonStyle(**case.get("style", {}))).json(descriptor)
    if "unwritable" in case:
        with pytest.raises(Unwritable, match=case["unwritable"]):
            write(message)
    else:
        assert json.loads(write(message)) == json.loads(case["json"])


def test_single_precision_is_shortest(schema: Schema) -> None:
    """
    A 32-bit float is written with the fewest digits that bring it back.
    """
    from random import Random
    from struct import pack, unpack

    from google.protobuf.internal.type_checkers import ToShortestFloat

    from gateway.core.transcoding.encode_values import single

    random = Random(3)
    for _ in range(5000):
        value = unpack("<f", pack("<I", random.getrandbits(32)))[0]
        if value - value == 0:
            assert single(value) == ToShortestFloat(value)


def test_hostile_any_does_not_exhaust_the_stack(schema: Schema) -> None:
    """
    Any within Any, thousands deep, is refused.
    """
    kind: Any = schema.method("test.v1.Echo/EchoKnown").request
    message = kind()
    inner = kind().any
    for _ in range(3000):
        outer = kind().any
        outer.type_url = "x/google.protobuf.Any"
        outer.value = inner.SerializeToString()
        inner = outer
    message.any.CopyFrom(inner)
    with pytest.raises(Unwritable):
        schema.codecs.encoders().json(kind.DESCRIPTOR)(message)

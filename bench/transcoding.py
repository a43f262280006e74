"""
JSON to messages and back, beside protobuf's own json_format: ``python -m bench.transcoding``.

The message is a player's record of 11 fields and 291 bytes, two Timestamps among them. Both sides
do the same work in turn; each figure is the least of several rounds, in microseconds of CPU.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, json_format, text_format, timestamp_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from gateway.core.transcoding.codecs import Codecs
from gateway.core.transcoding.rules import direct

__all__ = ["Pair", "measure"]

PROTO = """
name: "bench.proto" package: "bench" syntax: "proto3" dependency: "google/protobuf/timestamp.proto"
enum_type { name: "Status" value { name: "UNKNOWN" number: 0 } value { name: "ACTIVE" number: 1 } }
message_type { name: "Money" field { name: "currency" number: 1 type: TYPE_STRING } field { name: "amount" number: 2 type: TYPE_STRING } }
message_type { name: "Meta"
  field { name: "created" number: 1 type: TYPE_MESSAGE type_name: ".google.protobuf.Timestamp" }
  field { name: "updated" number: 2 type: TYPE_MESSAGE type_name: ".google.protobuf.Timestamp" }
  field { name: "version" number: 3 type: TYPE_INT32 } }
message_type { name: "Player"
  field { name: "id" number: 1 type: TYPE_INT64 } field { name: "player" number: 2 type: TYPE_STRING }
  field { name: "table" number: 3 type: TYPE_STRING } field { name: "status" number: 4 type: TYPE_ENUM type_name: ".bench.Status" }
  field { name: "balance" number: 5 type: TYPE_MESSAGE type_name: ".bench.Money" }
  field { name: "stack" number: 6 type: TYPE_INT64 } field { name: "seat" number: 7 type: TYPE_INT32 }
  field { name: "tags" number: 8 type: TYPE_STRING label: LABEL_REPEATED }
  field { name: "meta" number: 9 type: TYPE_MESSAGE type_name: ".bench.Meta" } field { name: "note" number: 10 type: TYPE_STRING }
  field { name: "labels" number: 11 type: TYPE_MESSAGE label: LABEL_REPEATED type_name: ".bench.Player.LabelsEntry" }
  nested_type { name: "LabelsEntry" options { map_entry: true }
    field { name: "key" number: 1 type: TYPE_STRING } field { name: "value" number: 2 type: TYPE_STRING } } }
message_type { name: "GetPlayer" field { name: "id" number: 1 type: TYPE_INT64 } field { name: "player" number: 2 type: TYPE_STRING }
  field { name: "fields" number: 3 type: TYPE_STRING label: LABEL_REPEATED } }
service { name: "Players" method { name: "Get" input_type: ".bench.GetPlayer" output_type: ".bench.Player" } }
"""
PLAYER = {
    "id": "12345",
    "player": "p-000042",
    "table": "t-17",
    "status": "ACTIVE",
    "balance": {"currency": "EUR", "amount": "1234.50"},
    "stack": "2500",
    "seat": 4,
    "tags": ["nlhe", "6max", "fast"],
    "meta": {"created": "2026-11-22T22:13:20Z", "updated": "2026-11-22T22:14:20Z", "version": 7},
    "note": "x" * 200,
    "labels": {"a": "b"},
}
REQUEST = b'{"player":"p-000042","id":"42","fields":["a","b"]}'
JSON = b"application/json"


@dataclass(frozen=True, slots=True)
class Pair:
    """One piece of work, ours and json_format's, in microseconds of CPU."""

    what: str
    ours_us: float
    theirs_us: float

    @property
    def ratio(self) -> float:
        """What ours costs as a share of theirs."""
        return self.ours_us / self.theirs_us


def measure(rounds: int = 7, times: int = 4000) -> list[Pair]:
    """
    Measure writing the record, reading it, and reading a small request.
    """
    pool = DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(text_format.Parse(PROTO, descriptor_pb2.FileDescriptorProto()).SerializeToString())
    method: Any = pool.FindServiceByName("bench.Players").methods_by_name["Get"]
    player, get_player = GetMessageClass(method.output_type), GetMessageClass(method.input_type)
    codecs = Codecs(pool)
    record = json_format.ParseDict(PLAYER, player())
    write = codecs.encoders().json(method.output_type)
    read = codecs.decoders().decoder(method.output_type)
    binding = direct(method, codecs)
    text = write(record)
    assert read(text) == record == json_format.Parse(text, player())
    assert len(record.SerializeToString()) == 291
    work: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
        ("message to JSON", lambda: write(record), lambda: json_format.MessageToJson(record, indent=None)),
        ("JSON to message", lambda: read(text), lambda: json_format.Parse(text, player())),
        (
            "small request",
            lambda: binding.message({}, b"", REQUEST, JSON),
            lambda: json_format.Parse(REQUEST, get_player()),
        ),
    ]
    pairs = []
    for what, ours, theirs in work:
        best = [float("inf"), float("inf")]
        for _ in range(rounds):
            for place, function in enumerate((ours, theirs)):
                started = time.process_time()
                for _ in range(times):
                    function()
                best[place] = min(best[place], (time.process_time() - started) / times * 1e6)
        pairs.append(Pair(what, *best))
    return pairs


if __name__ == "__main__":
    for pair in measure():
        print(f"{pair.what:20}{pair.ours_us:8.2f} us {pair.theirs_us:8.2f} us {pair.ratio:8.2f}x")

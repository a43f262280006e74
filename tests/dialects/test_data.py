"""
What one client sends reaches others as it should be, or not at all, whichever encoding each speaks.
"""

from __future__ import annotations

import pytest
from tests.realtime.house import House

from gateway.dialects.centrifuge_json import CentrifugeJson
from gateway.dialects.centrifuge_protobuf import CentrifugeProtobuf
from gateway.ports.dialect import BadFrame
from gateway.protos.gateway.wire import centrifuge_pb2 as pb

NOT_JSON = (b"not json", b'"\xff"', b'{"a":', b"1 2", b'{"a":1}\n{"b":2}')


def framed(command: pb.Command) -> bytes:
    data = command.SerializeToString()
    return bytes((len(data),)) + data


@pytest.mark.parametrize("data", NOT_JSON)
@pytest.mark.parametrize("kind", ["publish", "rpc", "send", "connect", "subscribe"])
def test_protobuf_data_is_json(kind: str, data: bytes) -> None:
    """
    Bytes that are no JSON would break the frames of everybody who speaks JSON: they are no message of the protocol.
    """
    command = pb.Command(id=1)
    getattr(command, kind).data = data
    with pytest.raises(BadFrame):
        CentrifugeProtobuf().commands(framed(command))
    getattr(command, kind).data = b'{"a":"\xc3\xa9"}'
    (read,) = CentrifugeProtobuf().commands(framed(command))
    assert read.request.data == b'{"a":"\xc3\xa9"}'  # type: ignore[union-attr]


def test_json_data_is_text() -> None:
    """
    Letters that are none, which a binary frame can hold, end the connection that sent them and reach nobody.
    """
    with pytest.raises(BadFrame):
        CentrifugeJson().commands(b'{"id":2,"publish":{"channel":"lobby","data":"\xff"}}')
    house = House('[channels.lobby]\nsubscribe = "authenticated"\npublish = "authenticated"\n')
    alice, bob = house.connected("alice"), house.connected("bob")
    bob.reply(subscribe={"channel": "lobby"})
    alice.side.received(b'{"id":2,"publish":{"channel":"lobby","data":"\xff"}}')
    assert alice.wire.closed is not None
    assert alice.wire.closed[0] == 3501
    assert bob.pushes() == []

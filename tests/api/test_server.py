"""
The server API over gRPC: a real channel from other threads to a whole node on the reactor's.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
import pytest_twisted
from tests.realtime.house import House
from tests.web.harness import pause
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from gateway.api.server import MOST_MESSAGE, MOST_WAITING, ApiServer, CannotListen
from gateway.config.sections import AdminKey, Secret
from gateway.core.publications import Published
from gateway.memory.broker import MemoryBroker
from gateway.node.api_keys import ApiKeys
from gateway.node.operations import Operations
from gateway.node.orders import ORDERS
from gateway.protos.gateway.v1 import api_pb2

CONFIG = """
[channels.lobby]
subscribe = "authenticated"
presence = true
history = { size = 5, ttl = "5m" }
coalesce = "0s"

[channels."table:{id}"]
subscribe = "authenticated"
snapshot = { upstream = "backend", http = "POST /state", set = { id = "channel.id" } }
"""

ALL, GAME = "all-all-all-all-all", "game-game-game-game"
KEYS = (AdminKey("root", Secret(ALL), ("*",)), AdminKey("game", Secret(GAME), ("publish",), ("table:*",)))

PB: Any = api_pb2


class Served:
    """
    A server of its own, and a channel to it.
    """

    def __init__(self, address: str = "127.0.0.1:0") -> None:
        self.house = House(CONFIG)
        self.crashes: list[Failure] = []
        here: Any = reactor
        keys = ApiKeys(KEYS)
        self.server = ApiServer(here, Operations(self.house.node), keys, address, self.crashes.append)
        self.server.start()
        target = address if address.startswith("unix:") else f"127.0.0.1:{self.server.port}"
        self.channel = grpc.insecure_channel(target)

    def begin(self, name: str, request: Any, metadata: Any = (("x-api-key", ALL),), within_s: float = 20) -> Any:
        """Begin a call; a gRPC future."""
        reply = PB.DESCRIPTOR.services_by_name["GatewayApi"].methods_by_name[name].output_type.name
        return self.channel.unary_unary(
            f"/gateway.v1.GatewayApi/{name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=getattr(PB, reply).FromString,
        ).future(request, timeout=within_s, metadata=metadata)

    async def call(self, name: str, request: Any, metadata: Any = (("x-api-key", ALL),)) -> Any:
        """Call, while the reactor turns."""
        return await deferToThread(self.begin(name, request, metadata).result)

    async def status(self, *arguments: Any, **more: Any) -> tuple[grpc.StatusCode, str]:
        """Call something that fails as a call; how."""
        with pytest.raises(grpc.RpcError) as failed:
            await self.call(*arguments, **more)
        error: Any = failed.value
        return error.code(), error.details()


@asynccontextmanager
async def served(address: str = "127.0.0.1:0") -> AsyncIterator[Served]:
    one = Served(address)
    try:
        yield one
    finally:
        one.channel.close()
        await one.server.stop()


async def eventually(true: Callable[[], Any]) -> None:
    """Wait until something is true, 10 s at most."""
    for _ in range(500):
        if true():
            return
        await pause(0.02)
    assert true()


def test_the_service_has_every_operation() -> None:
    """
    Each operation is a method, and a member of a batch's commands and replies.
    """
    methods = {method.name for method in PB.DESCRIPTOR.services_by_name["GatewayApi"].methods}
    assert methods == {"".join(part.title() for part in name.split("_")) for name in ORDERS}
    commands = {field.name for field in PB.Command.DESCRIPTOR.fields}
    assert commands == set(ORDERS) - {"batch"}
    assert {field.name for field in PB.Reply.DESCRIPTOR.fields} == commands | {"error"}


@pytest_twisted.ensureDeferred
async def test_the_silent_are_named_in_messages() -> None:
    """
    What other instances have is in the reply, and who does not answer is named in it.
    """
    async with served() as it:
        person = it.house.connected("alice", node=it.house.add())
        silent = it.house.add()
        silent.bus.answer("connections", lambda _sender, _body: Deferred())
        silent.bus.answer("unsubscribe", lambda _sender, _body: Deferred())
        calls = [
            deferToThread(it.begin("Connections", PB.ConnectionsRequest(user="alice")).result),
            deferToThread(it.begin("Unsubscribe", PB.UnsubscribeRequest(user="alice", channel="lobby")).result),
        ]
        while not all(call.called for call in calls):
            await pause(0.02)
            it.house.clock.advance(0.1)
        connections, unsubscribed = [await call for call in calls]
        assert set(connections.result.connections) == {person.side.id}
        assert list(connections.result.silent) == list(unsubscribed.result.silent) == ["node-3"]


def test_messages_have_the_members_of_json() -> None:
    """
    What JSON takes, the messages take, under the same names; b64 forms and what has no meaning here aside.
    """
    methods = PB.DESCRIPTOR.services_by_name["GatewayApi"].methods_by_name
    for name, (order, _) in ORDERS.items():
        message = methods["".join(part.title() for part in name.split("_"))].input_type
        wanted = {each for each in order.__struct_fields__ if not each.startswith("b64")} - {"delta", "parallel"}
        assert {field.name for field in message.fields} == wanted, name


@pytest_twisted.ensureDeferred
async def test_publish_over_grpc() -> None:
    """
    A publication is heard as it was sent, with the position of the reply; versions and keys hold.
    """
    async with served() as api:
        person = api.house.connected()
        person.reply(subscribe={"channel": "lobby"})
        request = PB.PublishRequest(channel="lobby", data=b'{"a": "\xc3\xa9"}', tags={"kind": "news"}, version=3)
        reply = await api.call("Publish", request)
        assert (reply.result.offset, len(reply.result.epoch), reply.HasField("error")) == (1, 8, False)
        assert (await api.call("Publish", request)).result == reply.result, "its version is not newer"
        keyed = PB.PublishRequest(channel="lobby", data=b"2", idempotency_key="k", wait_replicas=1, wait_ms=50)
        assert (await api.call("Publish", keyed)).result == PB.PublishResult(
            offset=2, epoch=reply.result.epoch, replicas=0
        )
        assert (await api.call("Publish", keyed)).result.offset == 2
        assert person.pushes() == [
            {"channel": "lobby", "pub": {"data": {"a": "é"}, "offset": 1, "tags": {"kind": "news"}, "version": 3}},
            {"channel": "lobby", "pub": {"data": 2, "offset": 2}},
        ]
        history = await api.call("History", PB.HistoryRequest(channel="lobby", limit=-1))
        assert [(each.data, each.offset) for each in history.result.publications] == [
            (b'{"a": "\xc3\xa9"}', 1),
            (b"2", 2),
        ]
        assert history.result.epoch == reply.result.epoch


@pytest_twisted.ensureDeferred
async def test_errors_are_in_the_reply() -> None:
    """
    What an operation cannot do is its own error with the code that clients know, not a failed call.
    """
    async with served() as api:
        for name, request, code in (
            ("Publish", PB.PublishRequest(channel="no-such", data=b"1"), 102),
            ("Publish", PB.PublishRequest(channel="lobby"), 107),
            ("Publish", PB.PublishRequest(channel="lobby", data=b"\xff"), 107),
            ("Publish", PB.PublishRequest(data=b"1"), 107),
            ("History", PB.HistoryRequest(channel="table:1"), 108),
            ("Presence", PB.ChannelRequest(channel="table:1"), 108),
            ("Disconnect", PB.DisconnectRequest(), 107),
            ("Refresh", PB.RefreshRequest(user="u", expire_at=float("nan")), 107),
        ):
            reply = await api.call(name, request)
            assert (reply.error.code, bool(reply.error.message), reply.HasField("result")) == (code, True, False)


@pytest_twisted.ensureDeferred
async def test_batch_over_grpc() -> None:
    """
    Each command has its own reply; an empty result is there all the same.
    """
    async with served() as api:
        request = PB.BatchRequest(
            commands=[
                PB.Command(publish=PB.PublishRequest(channel="lobby", data=b"1")),
                PB.Command(),
                PB.Command(unsubscribe=PB.UnsubscribeRequest(user="u", channel="lobby")),
                PB.Command(info=PB.InfoRequest()),
            ]
        )
        replies = (await api.call("Batch", request)).result.replies
        assert replies[0].publish.offset == 1
        assert replies[1].error.code == 107
        assert replies[2].HasField("unsubscribe")
        assert replies[3].info.nodes[0].uid == "node-1"


@pytest_twisted.ensureDeferred
async def test_keys_over_grpc() -> None:
    """
    One key is wanted, as ``x-api-key``, ``apikey`` or ``Bearer``; it does what its scopes and channels allow.
    """
    async with served() as api:
        info = PB.InfoRequest()
        for metadata in (
            (("x-api-key", ALL),),
            (("authorization", f"apikey {ALL}"),),
            (("authorization", f"Bearer {ALL}"),),
        ):
            assert (await api.call("Info", info, metadata)).result.nodes
        wrong: Any
        for wrong in ((), (("x-api-key", "wrong-wrong"),), (("x-api-key", ALL), ("authorization", f"apikey {ALL}"))):
            assert (await api.status("Info", info, wrong))[0] is grpc.StatusCode.UNAUTHENTICATED
        game = (("x-api-key", GAME),)
        assert (await api.call("Info", info, game)).error.code == 103
        assert (await api.call("Publish", PB.PublishRequest(channel="lobby", data=b"1"), game)).error.code == 103
        allowed = await api.call("Publish", PB.PublishRequest(channel="table:1", data=b"1"), game)
        assert not allowed.HasField("error")


@pytest_twisted.ensureDeferred
async def test_what_takes_too_long_is_cancelled() -> None:
    """
    A call whose deadline passes, or whose caller hangs up, ends, and so does what the backend was asked for it.
    """
    async with served() as api:
        person = api.house.connected("alice")
        for hang_up in (False, True):
            cancelled: list[Any] = []
            api.house.answers["POST /state"] = Deferred(cancelled.append)
            request = PB.SubscribeRequest(user="alice", channel="table:1")
            call = api.begin("Subscribe", request, within_s=20 if hang_up else 0.5)
            await eventually(lambda: "POST /state" in api.house.backends)
            if hang_up:
                await eventually(lambda: len(api.house.backends["POST /state"].calls) == 2)
                call.cancel()
            await eventually(call.done)
            wanted = grpc.StatusCode.CANCELLED if hang_up else grpc.StatusCode.DEADLINE_EXCEEDED
            assert call.code() is wanted
            await eventually(cancelled.__len__)
            assert person.side.subscriptions == {}
        assert api.crashes == []


@pytest_twisted.ensureDeferred
async def test_more_than_can_be_served_is_refused() -> None:
    """
    Calls beyond the bound, and messages beyond theirs, are refused at once instead of filling memory.
    """
    async with served() as api:
        big = PB.PublishRequest(channel="lobby", data=b"1" * (MOST_MESSAGE + 1))
        assert (await api.status("Publish", big))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        api.house.answers["POST /state"] = lambda *_: Deferred()
        api.house.connected("alice")
        tables = [f"table:{number}" for number in range(MOST_WAITING + 10)]
        calls = [api.begin("Subscribe", PB.SubscribeRequest(user="alice", channel=table)) for table in tables]
        await eventually(lambda: len([call for call in calls if call.done()]) >= 10)
        refused = [call for call in calls if call.done()]
        assert {call.code() for call in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert len(refused) == 10


class Broken(MemoryBroker):
    """A broker with a bug."""

    async def publish(self, *_: Any, **__: Any) -> Published:
        """Fail."""
        raise RuntimeError("something that is nobody's business")


@pytest_twisted.ensureDeferred
async def test_a_bug_is_told_to_the_log_alone() -> None:
    """
    A bug fails the call as internal, without its text, and is reported once with its traceback.
    """
    async with served() as api:
        api.house.node.broker = Broken(api.house.channels)
        status = await api.status("Publish", PB.PublishRequest(channel="lobby", data=b"1"))
        assert status == (grpc.StatusCode.INTERNAL, "internal server error")
        (crash,) = api.crashes
        assert crash.check(RuntimeError)


@pytest_twisted.ensureDeferred
async def test_stopping_ends_every_call_and_thread() -> None:
    """
    Calls that hang are cut when the server stops, and no thread stays behind to hold the process.
    """
    async with served() as api:
        api.house.answers["POST /state"] = Deferred()
        api.house.connected("alice")
        call = api.begin("Subscribe", PB.SubscribeRequest(user="alice", channel="table:1"))
        await eventually(lambda: "POST /state" in api.house.backends)
        await api.server.stop()
        await eventually(call.done)
        assert call.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
        await eventually(lambda: not [each for each in threading.enumerate() if each.name.startswith("server-api")])
        await api.server.stop()


@pytest_twisted.ensureDeferred
async def test_a_port_has_one_server() -> None:
    """
    A second server on the port does not start; once the first has stopped, one does.
    """
    async with served() as api:
        address = f"127.0.0.1:{api.server.port}"
        with pytest.raises(CannotListen, match=f"listen.api: cannot listen on {address}"):
            Served(address)
    async with served(address) as again:
        assert (await again.call("Info", PB.InfoRequest())).result.nodes


@pytest_twisted.ensureDeferred
async def test_a_unix_socket(tmp_path: Any) -> None:
    """
    The address may be a socket of the file system.
    """
    async with served(f"unix:{tmp_path}/api.sock") as api:
        assert (await api.call("Info", PB.InfoRequest())).result.nodes

"""
Services whose protos say nothing of HTTP, fronted by configuration alone: by a descriptor file and by reflection, over TLS,
with and without a token.
"""

from __future__ import annotations

import base64
import http.client
import json
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, text_format, timestamp_pb2, wrappers_pb2
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection
from tests.system.processes import SECRET, Answer, Running, eventually, running
from tests.web.certificates import Authority

from bench.refusals import faults
from bench.targets import make_key
from demo.ports import free_port

TWISTD = str(Path(sys.executable).with_name("twistd"))

PROTO = """
name: "plain.proto" package: "plain" syntax: "proto3"
dependency: "google/protobuf/timestamp.proto"
dependency: "google/protobuf/duration.proto"
dependency: "google/protobuf/wrappers.proto"
message_type { name: "HelloRequest" field { name: "name" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL } }
message_type { name: "HelloReply" field { name: "message" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL } }
enum_type { name: "Color" value { name: "NONE" number: 0 } value { name: "RED" number: 1 } }
message_type {
  name: "All"
  field { name: "big" number: 1 type: TYPE_INT64 label: LABEL_OPTIONAL }
  field { name: "raw" number: 2 type: TYPE_BYTES label: LABEL_OPTIONAL }
  field { name: "color" number: 3 type: TYPE_ENUM type_name: ".plain.Color" label: LABEL_OPTIONAL }
  field { name: "counts" number: 4 type: TYPE_MESSAGE type_name: ".plain.All.CountsEntry" label: LABEL_REPEATED }
  field { name: "text" number: 5 type: TYPE_STRING label: LABEL_OPTIONAL oneof_index: 0 }
  field { name: "number" number: 6 type: TYPE_INT32 label: LABEL_OPTIONAL oneof_index: 0 }
  field { name: "at" number: 7 type: TYPE_MESSAGE type_name: ".google.protobuf.Timestamp" label: LABEL_OPTIONAL }
  field { name: "lasts" number: 8 type: TYPE_MESSAGE type_name: ".google.protobuf.Duration" label: LABEL_OPTIONAL }
  field { name: "maybe" number: 9 type: TYPE_MESSAGE type_name: ".google.protobuf.Int64Value" label: LABEL_OPTIONAL }
  field { name: "present" number: 10 type: TYPE_INT32 label: LABEL_OPTIONAL oneof_index: 1 proto3_optional: true }
  field { name: "children" number: 11 type: TYPE_MESSAGE type_name: ".plain.All" label: LABEL_REPEATED }
  field { name: "user_id" number: 12 type: TYPE_STRING label: LABEL_OPTIONAL }
  nested_type {
    name: "CountsEntry" options { map_entry: true }
    field { name: "key" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
    field { name: "value" number: 2 type: TYPE_UINT64 label: LABEL_OPTIONAL }
  }
  oneof_decl { name: "choice" }
  oneof_decl { name: "_present" }
}
service {
  name: "Greeter"
  method { name: "SayHello" input_type: ".plain.HelloRequest" output_type: ".plain.HelloReply" }
}
service { name: "Echo" method { name: "Same" input_type: ".plain.All" output_type: ".plain.All" } }
"""

FILE = text_format.Parse(PROTO, descriptor_pb2.FileDescriptorProto())
POOL = descriptor_pool.DescriptorPool()
for _module in (timestamp_pb2, duration_pb2, wrappers_pb2):
    POOL.AddSerializedFile(_module.DESCRIPTOR.serialized_pb)
POOL.AddSerializedFile(FILE.SerializeToString())
HelloRequest: Any = GetMessageClass(POOL.FindMessageTypeByName("plain.HelloRequest"))
HelloReply: Any = GetMessageClass(POOL.FindMessageTypeByName("plain.HelloReply"))
All: Any = GetMessageClass(POOL.FindMessageTypeByName("plain.All"))

ROUTES = """
[[route]]
path     = "/hello/{name}"
methods  = ["GET"]
upstream = "plain"
call     = "plain.Greeter/SayHello"

[[route]]
path          = "/message/{name}"
methods       = ["GET"]
upstream      = "plain"
call          = "plain.Greeter/SayHello"
response_body = "message"

[[route]]
path     = "/same"
methods  = ["POST"]
upstream = "plain"
call     = "plain.Echo/Same"
body     = "*"
set      = { user_id = "claims.sub" }
"""


class Backend:
    """
    A grpcio server that answers both services, and remembers what it was asked.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any, dict[str, Any]]] = []
        self.port = 0

    def hello(self, request: Any, context: Any) -> Any:
        """Greet."""
        self.asked.append(("SayHello", request, dict(context.invocation_metadata())))
        return HelloReply(message=f"Hello {request.name}")

    def same(self, request: Any, context: Any) -> Any:
        """Send it back."""
        self.asked.append(("Same", request, dict(context.invocation_metadata())))
        return request


@contextmanager
def serving(credentials: Any = None, *, reflects: bool = False, port: int = 0) -> Iterator[Backend]:
    backend = Backend()
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    for service, name, behave, request in (
        ("plain.Greeter", "SayHello", backend.hello, HelloRequest),
        ("plain.Echo", "Same", backend.same, All),
    ):
        handler = grpc.unary_unary_rpc_method_handler(
            behave,
            request_deserializer=request.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
    if reflects:
        reflection.enable_server_reflection(("plain.Greeter", "plain.Echo", reflection.SERVICE_NAME), server, pool=POOL)
    if credentials is None:
        backend.port = server.add_insecure_port(f"127.0.0.1:{port}")
    else:
        backend.port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield backend
    finally:
        server.stop(0).wait(5)


def write_descriptors(folder: Path) -> None:
    described = descriptor_pb2.FileDescriptorSet()
    for module in (timestamp_pb2, duration_pb2, wrappers_pb2):
        described.file.add().ParseFromString(module.DESCRIPTOR.serialized_pb)
    described.file.append(FILE)
    (folder / "plain.binpb").write_bytes(described.SerializeToString())


def ask(port: int, method: str, path: str, body: Any = None, bearer: str = "") -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {bearer}"} if bearer else {})
    connection.request(method, path, json.dumps(body) if body is not None else None, headers)
    answer = connection.getresponse()
    found = Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    connection.close()
    return found


def token(user: str = "alice") -> str:
    claims = {"iss": "https://id.example", "aud": "gateway", "sub": user, "iat": 0, "exp": 4e9}
    return jwt.encode(claims, SECRET, "HS256")


@pytest.fixture(scope="module", params=["file", "reflection"])
def fronted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Running, Backend]]:
    folder: Path = tmp_path_factory.mktemp("plain")
    write_descriptors(folder)
    known = 'descriptors = "plain.binpb"' if request.param == "file" else "reflection = true"
    with serving(reflects=request.param == "reflection") as backend:
        upstream = f'[upstream.plain]\ngrpc = ["127.0.0.1:{backend.port}"]\n{known}\n'
        with running(TWISTD, folder, upstream + ROUTES) as gateway:
            yield gateway, backend


def test_hello(fronted: tuple[Running, Backend]) -> None:
    """
    A service like grpcio's own example is called by a path.
    """
    gateway, backend = fronted
    answer = ask(gateway.port, "GET", "/hello/w%C3%B6rld", bearer=token())
    assert (answer.status, answer.json) == (200, {"message": "Hello wörld"})
    assert backend.asked[-1][2]["x-user-id"] == "alice"
    answer = ask(gateway.port, "GET", "/message/you", bearer=token())
    assert (answer.status, answer.json) == (200, "Hello you")


EVERYTHING = {
    "big": "9007199254740993",
    "raw": base64.b64encode(bytes(range(256))).decode(),
    "color": "RED",
    "counts": {"a": "18446744073709551615", "b": "0"},
    "number": 0,
    "at": "2026-11-23T12:00:00.123456789Z",
    "lasts": "1.500s",
    "maybe": "0",
    "present": 0,
    "children": [{"text": ""}, {"big": "-1"}],
}


def test_everything(fronted: tuple[Running, Backend]) -> None:
    """
    Oneofs, maps, 64 bits, bytes, enums, well-known types and presence arrive as what they are, and come back so.
    """
    gateway, backend = fronted
    answer = ask(gateway.port, "POST", "/same", EVERYTHING, token())
    assert answer.status == 200
    assert answer.json == {**EVERYTHING, "userId": "alice"}
    _, message, _ = backend.asked[-1]
    assert (message.big, message.color, message.counts["a"], message.raw) == (
        2**53 + 1,
        1,
        2**64 - 1,
        bytes(range(256)),
    )
    assert (message.WhichOneof("choice"), message.HasField("present"), message.HasField("maybe")) == (
        "number",
        True,
        True,
    )
    assert (message.at.nanos, message.lasts.nanos, message.maybe.value) == (123456789, 500000000, 0)
    assert [child.WhichOneof("choice") for child in message.children] == ["text", None]
    empty = ask(gateway.port, "POST", "/same", {}, token())
    assert empty.json == {"userId": "alice"}
    assert not backend.asked[-1][1].HasField("present")


@pytest.mark.parametrize(
    "body",
    [
        {"text": "a", "number": 1},
        {"big": "many"},
        {"big": 1.5},
        {"color": "BLUE"},
        {"raw": "!!"},
        {"at": "yesterday"},
        {"nothing": 1},
        {"userId": "mallory"},
        {"user_id": "mallory"},
        {"present": 2**31},
        [],
    ],
    ids=json.dumps,
)
def test_what_is_no_message(fronted: tuple[Running, Backend], body: Any) -> None:
    """
    What makes no message is told with its place, and no call is made.
    """
    gateway, backend = fronted
    before = len(backend.asked)
    answer = ask(gateway.port, "POST", "/same", body, token())
    assert (answer.status, answer.json["code"]) == (400, "message_invalid")
    assert answer.json["errors"]
    assert len(backend.asked) == before


def test_nobody_is_told_to_nobody(tmp_path: Path) -> None:
    """
    With every fault of a token, no mapped method is called.
    """
    private = make_key(tmp_path).read_bytes()
    wrong = faults(private, (tmp_path / "public.pem").read_bytes())
    write_descriptors(tmp_path)
    issuer = """
[[auth.issuer]]
issuer          = "https://id.bench.example"
audience        = "gateway"
algorithms      = ["ES256"]
public_key_file = "public.pem"
"""
    with serving() as backend:
        upstream = f'[upstream.plain]\ngrpc = ["127.0.0.1:{backend.port}"]\ndescriptors = "plain.binpb"\n'
        with running(TWISTD, tmp_path, issuer + upstream + ROUTES) as gateway:
            tried = 0
            for lines in wrong.values():
                for method, path in (
                    ("GET", "/hello/x"),
                    ("GET", "/message/x"),
                    ("POST", "/same"),
                    ("POST", "/hello/x"),
                ):
                    head = [f"{method} {path} HTTP/1.1", "Host: a", *lines, "Content-Length: 2", "Connection: close"]
                    answer = _raw(gateway.port, "\r\n".join([*head, "", "{}"]))
                    assert answer[9:12] in (b"400", b"401", b"405"), answer[:80]
                    tried += 1
            assert tried > 150
            assert backend.asked == []
            assert ask(gateway.port, "GET", "/hello/x", bearer=token()).status == 200
            assert len(backend.asked) == 1


def _raw(port: int, request: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request.encode("latin-1"))
        received = b""
        while data := connection.recv(65536):
            received += data
        return received


@pytest.mark.parametrize("mutual", [False, True], ids=["tls", "mtls"])
def test_tls(mutual: bool, tmp_path: Path) -> None:
    """
    Over TLS the backend's certificate is verified, and with a certificate of the gateway's own the backend verifies it.
    """
    authority = Authority(tmp_path)
    server = authority.make("localhost")
    client = authority.make("gateway")
    write_descriptors(tmp_path)
    pair = (server.key.read_bytes(), server.certificate.read_bytes())
    trusted = authority.file.read_bytes() if mutual else None
    credentials = grpc.ssl_server_credentials([pair], trusted, require_client_auth=mutual)
    with serving(credentials) as backend:
        tls = f'ca_file = "{authority.file}"'
        if mutual:
            tls += f', certificate_file = "{client.certificate}", key_file = "{client.key}"'
        text = f'[upstream.plain]\ngrpc = ["grpcs://localhost:{backend.port}"]\ndescriptors = "plain.binpb"\ntls = {{ {tls} }}\n'
        with running(TWISTD, tmp_path, text + ROUTES) as gateway:
            assert ask(gateway.port, "GET", "/hello/x", bearer=token()).json == {"message": "Hello x"}
        other = Authority(tmp_path, "another authority")
        untrusted = text.replace(str(authority.file), str(other.file))
        folder = tmp_path / "untrusting"
        folder.mkdir()
        write_descriptors(folder)
        with running(TWISTD, folder, untrusted + ROUTES) as gateway:
            answer = ask(gateway.port, "GET", "/hello/x", bearer=token())
            assert (answer.status, answer.json["code"]) == (503, "upstream_unreachable")
        assert len(backend.asked) == 1


def test_a_backend_that_is_away_at_a_reload(tmp_path: Path) -> None:
    """
    What a backend told of itself is kept when it is away at a reload: new routes stand, and work once it is back.
    """
    port = free_port()
    text = f'[upstream.plain]\ngrpc = ["127.0.0.1:{port}"]\nreflection = true\n{ROUTES}'
    with serving(reflects=True, port=port):
        gateway_context = running(TWISTD, tmp_path, text)
        gateway = gateway_context.__enter__()
    try:
        file = tmp_path / "gateway.toml"
        more = '[[route]]\npath = "/again/{name}"\nupstream = "plain"\ncall = "plain.Greeter/SayHello"\n'
        file.write_text(file.read_text() + more)
        gateway.signal(signal.SIGHUP)
        gateway.hear("config.taken")
        gateway.hear("descriptors.kept")
        assert ask(gateway.port, "GET", "/again/x", bearer=token()).json["code"] == "upstream_unreachable"
        with serving(reflects=True, port=port):
            eventually(
                "the backend is used again", lambda: ask(gateway.port, "GET", "/again/x", bearer=token()).status == 200
            )
    finally:
        gateway_context.__exit__(None, None, None)

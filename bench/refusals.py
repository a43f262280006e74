"""
What a backend sees of requests without a valid token: nothing, over every route, method and fault tried.

Each route is also asked by each method with a good token, and must then be seen: a backend that is
unreachable would prove nothing.
"""

from __future__ import annotations

import json
import socket
import tempfile
import threading
import time
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bench.machine import layout
from bench.targets import BIN, ISSUER, make_key, pinned
from demo.ports import free_port

__all__ = ["Counted", "faults", "measure", "recording"]

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "TRACE", "CONNECT", "get", "G%45T")
TAKEN = METHODS[:7]
"""Methods that reach a backend with a good token; the gateway knows no others."""

TARGETS = (
    "/api/players",
    "/api/",
    "/exact",
    "/tables/7/seats/2",
    "/own/player-1",
    "/scoped/x",
    "/cookie/x",
    "/query/x",
    "/api/%70layers",
    "/open/../api/players",
    "//api//players",
    "/api/players?auth=none&path=/open/x",
)
"""Every route that demands a token, and other spellings of the way to it."""

TRICKS = ("/open/%2e%2e/api/players", "/open/..%2fapi/players", "/open/..;/api/players", "/open\\..\\api/players")
"""Further ones, which are refused whatever the token is."""

CONFIG = """
[listen]
clients = ["tcp:{port}:interface=127.0.0.1"]
admin   = ["tcp:{admin}:interface=127.0.0.1"]

[auth]
cookie = "session"
query  = "access_token"

[[auth.issuer]]
issuer          = "{issuer}"
audience        = "gateway"
algorithms      = ["ES256"]
public_key_file = "public.pem"

[upstream.backend]
http = ["http://127.0.0.1:{upstream}"]

[[route]]
path     = "/api/**"
upstream = "backend"
[[route]]
path     = "/exact"
upstream = "backend"
[[route]]
path     = "/tables/{{table_id}}/seats/{{seat}}"
upstream = "backend"
[[route]]
path     = "/own/{{player_id}}"
upstream = "backend"
when     = "path.player_id == claims.sub"
[[route]]
path     = "/scoped/**"
upstream = "backend"
scopes   = ["play"]
[[route]]
path        = "/cookie/**"
upstream    = "backend"
credentials = ["header", "cookie"]
[[route]]
path        = "/query/**"
upstream    = "backend"
credentials = ["header", "query"]
[[route]]
path     = "/open/**"
upstream = "backend"
auth     = "none"

[log]
access = false
"""


@dataclass(slots=True)
class Counted:
    """
    What was tried and what came of it.

    Attributes:
        seen: Requests without a valid token that reached the backend.
        answers: How often each status was answered, "closed" where the connection just ended.
        open_identified: Requests on the open route in which the backend was told an identity or a token.
    """

    routes: int
    methods: int
    faults: int
    tried: int = 0
    seen: int = 0
    open_tried: int = 0
    open_seen: int = 0
    open_identified: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    seen_of: list[str] = field(default_factory=list)


def _b64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def faults(private: bytes, public: bytes) -> dict[str, list[str]]:
    """
    Return header lines by the name of what is wrong with them.
    """
    now = int(time.time())
    good: dict[str, Any] = {
        "iss": ISSUER,
        "aud": "gateway",
        "sub": "player-1",
        "iat": now,
        "exp": now + 600,
        "scope": "play",
    }

    def signed(*without: str, key: Any = private, headers: dict[str, Any] | None = None, **other: Any) -> str:
        claims = {name: value for name, value in {**good, **other}.items() if name not in without}
        return jwt.encode(claims, key, algorithm="ES256", headers=headers)

    token = signed()
    head, claims, signature = token.split(".")
    none = _b64(b'{"alg":"none","typ":"JWT"}')
    doubled = json.dumps(good)[:-1] + ', "sub": "somebody-else"}'
    signing_key: Any = serialization.load_pem_private_key(private, None)
    raw_key = jwt.algorithms.ECAlgorithm(jwt.algorithms.ECAlgorithm.SHA256)
    signing = f"{head}.{_b64(doubled.encode())}"
    doubled_token = f"{signing}.{_b64(raw_key.sign(signing.encode(), signing_key))}"
    confused_head = _b64(b'{"alg":"HS256","typ":"JWT"}')
    hmac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    confused = f"{confused_head}.{claims}"
    confused_token = f"{confused}.{_b64(hmac.sign(confused.encode(), public))}"
    bearers = {
        "alg none": f"{none}.{claims}.",
        "alg none, signature kept": f"{none}.{claims}.{signature}",
        "public key as HMAC secret": confused_token,
        "signed by another key": signed(key=ec.generate_private_key(ec.SECP256R1())),
        "signature cut": token[:-4],
        "signature of zeros": f"{head}.{claims}.{_b64(bytes(64))}",
        "signature missing": f"{head}.{claims}.",
        "two parts": f"{head}.{claims}",
        "four parts": f"{token}.{signature}",
        "padded": f"{token}==",
        "claims changed": f"{head}.{_b64(json.dumps({**good, 'sub': 'admin'}).encode())}.{signature}",
        "claim twice": doubled_token,
        "expired": signed(exp=now - 3600),
        "expires as text": signed(exp=str(now + 600)),
        "expires at 1e300": signed(exp=1e300),
        "never expires": signed("exp"),
        "not yet valid": signed(nbf=now + 3600),
        "issued in the future": signed(iat=now + 3600),
        "issuer missing": signed("iss"),
        "issuer wrong": signed(iss="https://id.evil.example"),
        "audience missing": signed("aud"),
        "audience wrong": signed(aud="another-service"),
        "subject missing": signed("sub"),
        "subject empty": signed(sub=""),
        "subject a number": signed(sub=7),
        "critical extension": signed(headers={"crit": ["x"], "x": 1}),
        "other type": signed(headers={"typ": "refresh+jwt"}),
        "key id that is a path": signed(key=ec.generate_private_key(ec.SECP256R1()), headers={"kid": "../../dev/null"}),
        "key in the token": signed(
            key=ec.generate_private_key(ec.SECP256R1()), headers={"jku": "http://127.0.0.1:1/", "x5u": "http://x/"}
        ),
        "no token but text": "let-me-in",
        "nothing": "",
        "7 KiB of dots": "." * 7000,
    }
    made = {name: [f"Authorization: Bearer {bearer}"] for name, bearer in bearers.items()}
    made |= {
        "no header": [],
        "another scheme": ["Authorization: Basic YWxpY2U6cGFzc3dvcmQ="],
        "no scheme": [f"Authorization: {token}"],
        "scheme glued on": [f"Authorization: Bearer{token}"],
        "good token twice": [f"Authorization: Bearer {token}"] * 2,
        "good and bad": [f"Authorization: Bearer {token}", "Authorization: Bearer x"],
        "other header": [f"Proxy-Authorization: Bearer {token}", f"X-Authorization: Bearer {token}"],
        "name with an underscore": [f"Authorization_: Bearer {token}"],
        "name with a space": [f"Authorization : Bearer {token}"],
        "folded": ["Authorization: Bearer", f" {token}"],
        "dropped by Connection": ["Connection: authorization", "Authorization: Bearer x"],
        "other cookie": [f"Cookie: token={token}; other={token}"],
        "bad cookie": ["Cookie: session=x.y.z"],
        "identity asserted": [
            "X-User-Id: player-1",
            "X_User_Id: player-1",
            "X-User-Scope: play",
            "X-Gateway-User: admin",
        ],
        "identity by another spelling": ["x-USER-id: player-1", "X-Forwarded-User: player-1", "Remote-User: player-1"],
    }
    return made


@dataclass(slots=True)
class _Recorder:
    port: int
    heads: list[bytes] = field(default_factory=list)


@contextmanager
def recording() -> Iterator[_Recorder]:
    """
    Run a backend that answers 204 and keeps the head of every request.
    """
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    recorder = _Recorder(listener.getsockname()[1])

    def serve(connection: socket.socket) -> None:
        with connection:
            data = b""
            while True:
                while b"\r\n\r\n" not in data:
                    try:
                        received = connection.recv(65536)
                    except OSError:
                        return
                    if not received:
                        return
                    data += received
                head, _, data = data.partition(b"\r\n\r\n")
                recorder.heads.append(head)
                length = next(
                    (int(line[15:]) for line in head.split(b"\r\n") if line[:15].lower() == b"content-length:"), 0
                )
                while len(data) < length:
                    received = connection.recv(65536)
                    if not received:
                        return
                    data += received
                data = data[length:]
                connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield recorder
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _ask(port: int, method: str, target: str, lines: list[str]) -> str:
    head = "\r\n".join([f"{method} {target} HTTP/1.1", "Host: play.example", *lines, "Connection: close", "", ""])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        answered = b""
        try:
            connection.sendall(head.encode("ascii"))
            while received := connection.recv(65536):
                answered += received
        except ConnectionError:
            pass
    return answered[9:12].decode("ascii") or "closed"


def measure(say: Callable[[str], None] = lambda _: None) -> Counted:
    """
    Try them all against a gateway of its own; return what was counted.

    Raises:
        SystemExit: a good token did not reach the backend, so nothing was proved.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as place, recording() as backend:
        folder = Path(place)
        private = make_key(folder).read_bytes()
        wrong = faults(private, (folder / "public.pem").read_bytes())
        port = free_port()
        text = CONFIG.format(port=port, admin=free_port(), issuer=ISSUER, upstream=backend.port)
        (folder / "gateway.toml").write_text(text)
        command = [str(BIN / "twistd"), "-n", "--pidfile=", "gateway", "--config", str(folder / "gateway.toml")]
        counted = Counted(text.count("[[route]]") - 1, len(METHODS), len(wrong))
        with pinned(layout(None).measured, command, folder, port):
            _with_good_token(port, private, backend)
            backend.heads.clear()
            for name, lines in wrong.items():
                for method in METHODS:
                    for target in TARGETS + TRICKS:
                        counted.tried += 1
                        counted.answers[_ask(port, method, target, lines)] += 1
                        if backend.heads:
                            counted.seen += len(backend.heads)
                            counted.seen_of.append(f"{name}: {method} {target}")
                            backend.heads.clear()
                say(f"{name}: {counted.tried} tried, {counted.seen} seen")
            for lines in wrong.values():
                for method in TAKEN:
                    counted.open_tried += 1
                    _ask(port, method, "/open/x", lines)
            counted.open_seen = len(backend.heads)
            counted.open_identified = sum(map(_identifies, backend.heads))
    return counted


def _with_good_token(port: int, private: bytes, backend: _Recorder) -> None:
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": "gateway", "sub": "player-1", "iat": now, "exp": now + 600, "scope": "play chat"}
    bearer = jwt.encode(claims, private, algorithm="ES256")
    for method in TAKEN:
        for target in TARGETS:
            backend.heads.clear()
            status = _ask(port, method, target, [f"Authorization: Bearer {bearer}"])
            if status != "204" or len(backend.heads) != 1:
                raise SystemExit(f"bench: {method} {target} with a good token was answered {status}")


def _identifies(head: bytes) -> bool:
    names = {line.partition(b":")[0].strip().lower().replace(b"_", b"-") for line in head.split(b"\r\n")[1:]}
    return any(name.startswith((b"x-user-", b"x-gateway-")) or name == b"authorization" for name in names)

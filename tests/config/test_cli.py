"""
The command ``gateway``, as a process.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.cli import main

SRC = Path(__file__).resolve().parents[2] / "src"
SECRET = "correct-horse-battery-staple-0123"

GOOD = """
[auth]
query = "access_token"

[[auth.issuer]]
issuer = "https://id.example"
audience = ["gateway", "game"]
algorithms = ["HS256"]
secret = "${JWT_SECRET}"
max_lifetime = "2h"

[upstream.players]
http = ["http://127.0.0.1:7001", "http://127.0.0.1:7002"]
identity_headers = { X-User-Roles = "claims.roles" }

[[route]]
path = "/api/players/**"
upstream = "players"
strip_prefix = "/api"
credentials = ["header", "query"]

[[route]]
path = "/api/players/{player_id}"
methods = ["PUT"]
upstream = "players"
scopes = ["write"]
when = "path.player_id == claims.sub"
timeout = "3s"
name = "rename"

[[route]]
path = "/public/*"
upstream = "players"
auth = "none"
[route.cors]
origins = ["https://play.example"]
"""


ENVIRON = {**os.environ, "PYTHONPATH": str(SRC), "JWT_SECRET": SECRET, "COLUMNS": "200"}


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def process(*arguments: str, cwd: Path | None = None) -> Done:
    """Run the command as a process of its own."""
    command = [sys.executable, "-m", "gateway.cli", *arguments]
    done = subprocess.run(command, env=ENVIRON, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run the command in this process, which takes a hundredth of the time."""
    for name in ("JWT_SECRET", "COLUMNS"):
        monkeypatch.setenv(name, ENVIRON[name])

    def run(*arguments: str) -> Done:
        try:
            code = main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture
def good(tmp_path: Path) -> str:
    path = tmp_path / "gateway.toml"
    path.write_text(GOOD)
    return str(path)


@pytest.fixture
def bad(tmp_path: Path) -> str:
    path = tmp_path / "bad.toml"
    path.write_text('[limits]\nmax_bdy = 1\n\n[[route]]\npath = "/a"\nauth = "none"\nupstream = "players"\n')
    return str(path)


def test_check_of_a_good_file(good: str) -> None:
    """
    Exit code 0, one line.
    """
    done = process("check", good)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{good}: no faults; 3 routes, 1 upstream, 1 issuer\n"


def test_check_tells_every_fault(bad: str) -> None:
    """
    Exit code 1, each fault with file, line, column and key, and nothing on stdout.
    """
    done = process("check", bad)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"{bad}:2:1: limits.max_bdy: unknown key; did you mean 'max_body'?\n"
        f"{bad}:7:1: route[0].upstream: no upstream is named 'players'; there is no [upstream.NAME] at all\n"
    )


@pytest.mark.parametrize(
    "arguments", [["check"], ["explain", "GET", "/"], ["routes"], ["token", "--sub", "a"]], ids=lambda value: value[0]
)
def test_every_command_needs_a_sound_file(tmp_path: Path, arguments: list[str], gateway: Callable[..., Done]) -> None:
    """
    A missing file is one line on stderr and exit code 1, never a traceback.
    """
    command, *rest = arguments
    done = gateway(command, str(tmp_path / "none.toml"), *rest)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{tmp_path}/none.toml:1:1: the file cannot be read: no such file or directory\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "required: COMMAND"),
        (["chek", "x"], "invalid choice: 'chek'"),
        (["check"], "required: FILE"),
        (["token", "x"], "required: --sub"),
        (["token", "x", "--sub", "a", "--ttl", "60"], 'with a unit ("60s" or "60ms"?)'),
        (["token", "x", "--sub", "a", "--claim", "roles"], "'roles' is not NAME=VALUE"),
        (["explain", "x", "get", "/"], "did you mean GET?"),
        (["explain", "x", "G T", "/"], "'G T' is no method"),
    ],
)
def test_wrong_usage(arguments: list[str], says: str, gateway: Callable[..., Done]) -> None:
    """
    Exit code 2, one line that says what is wrong and where help is.
    """
    done = gateway(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert "--help" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["", "check", "explain", "routes", "token", "schema", "version"])
def test_help(command: str, gateway: Callable[..., Done]) -> None:
    """
    Every command explains itself.
    """
    done = gateway(*([command] if command else []), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: gateway {command}".rstrip())


def test_explain_the_most_specific_route(good: str, gateway: Callable[..., Done]) -> None:
    """
    Route, variables, filters in order, target URLs, identity, and why not another.
    """
    done = gateway("explain", good, "PUT", "https://play.example/api/players//7?a=1")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.rstrip() for line in done.stdout.splitlines()] == [
        "path      /api/players/7",
        "route     route[1] /api/players/{player_id} (rename)",
        "variable  player_id = '7'",
        "filter    client address: the peer's",
        "          trace: a request id and a trace context, new",
        "          route: a body of at most 64MiB",
        "          credentials: a token from https://id.example in Authorization: Bearer, else 401",
        "          scopes: write, else 403",
        "          rule: path.player_id == claims.sub, else 403",
        "          deadline: 3s until the answer's head, retries included, else 504",
        "not       /api/players/**: it matches, if no more specific route does",
        "          /public/*: segment 1 is 'api', not 'public'",
        "upstream  players (least_requests)",
        "forwards  PUT http://127.0.0.1:7001/api/players/7?a=1",
        "          PUT http://127.0.0.1:7002/api/players/7?a=1",
        "identity  in headers: X-User-Id, X-User-Roles",
    ]


def test_explain_what_is_taken_off(good: str, gateway: Callable[..., Done]) -> None:
    """
    The prefix is stripped, and a token in the query is not forwarded.
    """
    done = gateway("explain", good, "GET", "/api/players/7?access_token=x&b=2")
    assert done.returncode == 0
    assert "forwards  GET http://127.0.0.1:7001/players/7?b=2\n" in done.stdout
    assert "the query parameter access_token, then removed" in done.stdout


@pytest.mark.parametrize(
    ("method", "url", "says"),
    [
        ("GET", "/apis/players", ["refused", "404 no_route", "/api/players/**: segment 1 is 'apis', not 'api'"]),
        ("GET", "/public/a/b", ["404 no_route", "/public/*: the path goes on after segment 2"]),
        ("TRACE", "/public/a", ["405 method_not_allowed", "allowed: DELETE, GET"]),
        ("GET", "/public/%2e%2e/api", ["400 bad_path (encoded_dot)"]),
        ("GET", "/public/a%2Fb", ["400 bad_path (encoded_slash)"]),
        ("GET", "/public/a;b", ["400 bad_path (path_parameter)"]),
        ("GET", "/../a", ["400 bad_path (above_root)"]),
    ],
)
def test_explain_why_not(good: str, method: str, url: str, says: list[str], gateway: Callable[..., Done]) -> None:
    """
    Exit code 1 where nothing is served: why, and the nearest routes.
    """
    done = gateway("explain", good, method, url)
    assert (done.returncode, done.stderr) == (1, "")
    for text in says:
        assert text in done.stdout


def test_explain_what_is_open(good: str, gateway: Callable[..., Done]) -> None:
    """
    An open route says so; the gateway's own paths need no route; what a browser would encode is encoded.
    """
    told = gateway("explain", good, "POST", "/public/x").stdout
    assert "none asked for" in told
    assert "pages of https://play.example may read answers" in told
    assert "/health, answered by the gateway itself" in gateway("explain", good, "GET", "/health").stdout
    assert "http://127.0.0.1:7001/public/%C3%A9%20a\n" in gateway("explain", good, "GET", "/public/é a").stdout


def test_routes_are_listed_most_specific_first(good: str, gateway: Callable[..., Done]) -> None:
    """
    The gateway's own among them.
    """
    done = gateway("routes", good)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["METHODS", "PATH", "AUTH", "LEADS", "TO", "RULE"]
    assert [line.split()[1] for line in lines[1:]] == [
        "/api/players/{player_id}",
        "/api/players/**",
        "/health",
        "/livez",
        "/public/*",
        "/ready",
        "/readyz",
    ]
    assert "required: write" in lines[1]
    assert "path.player_id == claims.sub" in lines[1]


def test_token_prints_a_token_and_nothing_else(good: str) -> None:
    """
    It is signed with the issuer's secret, for its first audience, and lasts an hour.
    """
    done = process(
        "token", good, "--sub", "alice", "--claim", 'roles=["player"]', "--claim", "name=Al=ice", "--claim", "level=3"
    )
    assert (done.returncode, done.stderr) == (0, "")
    claims = jwt.decode(
        done.stdout.strip(), SECRET, algorithms=["HS256"], audience="gateway", issuer="https://id.example"
    )
    assert done.stdout.count("\n") == 1
    assert claims["sub"] == "alice"
    assert (claims["roles"], claims["name"], claims["level"]) == (["player"], "Al=ice", 3)
    assert claims["exp"] - claims["iat"] == 3600
    assert abs(claims["iat"] - time.time()) < 120
    assert claims["jti"]


def test_token_takes_claims_instead_of_its_own(good: str, gateway: Callable[..., Done]) -> None:
    """
    Also ``iss`` and ``aud``, so that refusals can be tried.
    """
    done = gateway("token", good, "--sub", "alice", "--ttl", "90s", "--claim", "aud=other", "--claim", "iss=me")
    claims = jwt.decode(done.stdout.strip(), SECRET, algorithms=["HS256"], audience="other", issuer="me")
    assert claims["exp"] - claims["iat"] == 90


def test_token_that_would_be_refused(good: str, gateway: Callable[..., Done]) -> None:
    """
    A life beyond ``max_lifetime`` is told at once.
    """
    done = gateway("token", good, "--sub", "alice", "--ttl", "1d")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "gateway token: --ttl 1d is more than the issuer's max_lifetime, 2h: the token would be refused\n"
    )


def test_token_from_a_private_key(tmp_path: Path, gateway: Callable[..., Done]) -> None:
    """
    With several issuers one is chosen; the header's ``typ`` and ``kid`` are what they should be.
    """
    key = Ed25519PrivateKey.generate()
    (tmp_path / "private.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "public.pem").write_bytes(public)
    (tmp_path / "gateway.toml").write_text(
        GOOD + '[[auth.issuer]]\nissuer = "bots"\naudience = "gateway"\nalgorithms = "EdDSA"\ntype = "at+jwt"\n'
        'public_key_file = "public.pem"\nprivate_key_file = "private.pem"\n'
        '[[auth.issuer]]\nissuer = "far"\naudience = "gateway"\nalgorithms = "EdDSA"\njwks_url = "https://far.example/keys"\n'
    )
    run = partial(gateway, "token", str(tmp_path / "gateway.toml"), "--sub", "bot")
    done = run("--issuer", "bots", "--kid", "k1")
    assert jwt.decode(done.stdout.strip(), public, algorithms=["EdDSA"], audience="gateway")["iss"] == "bots"
    header = jwt.get_unverified_header(done.stdout.strip())
    assert (header["alg"], header["typ"], header["kid"]) == ("EdDSA", "at+jwt", "k1")
    for arguments, says in (
        ([], "several issuers can sign; choose one with --issuer: https://id.example, bots"),
        (["--issuer", "far"], "far has no secret or private_key_file"),
        (["--issuer", "nobody"], "there is no issuer nobody; configured: https://id.example, bots, far"),
    ):
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert says in done.stderr
    (tmp_path / "private.pem").write_text("no key")
    done = run("--issuer", "bots")
    assert (done.returncode, done.stdout) == (1, "")
    assert "private.pem cannot sign with EdDSA" in done.stderr
    assert "Traceback" not in done.stderr


def test_schema_is_json() -> None:
    """
    What is printed is a JSON Schema.
    """
    done = process("schema")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_version(gateway: Callable[..., Done]) -> None:
    """
    One line.
    """
    done = gateway("version")
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)


def test_a_reader_that_stops_is_no_error(good: str) -> None:
    """
    ``gateway schema | head -1`` ends quietly.
    """
    environ = {**os.environ, "PYTHONPATH": str(SRC)}
    command = [sys.executable, "-m", "gateway.cli", "schema"]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0

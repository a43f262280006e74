"""
Sound files become sections.
"""

import os
from ipaddress import ip_network
from pathlib import Path

import pytest

from gateway.config.load import Config, ConfigErrors, load, parse
from gateway.config.sections import Listener, Secret

SECRET = "correct-horse-battery-staple-0123"
ISSUER = f'[[auth.issuer]]\nissuer = "a"\naudience = "b"\nalgorithms = "HS256"\nsecret = "{SECRET}"\n'


def read(text: str, **environ: str) -> Config:
    return parse(text, "gateway.toml", environ)


def test_an_empty_file_is_a_gateway_with_defaults() -> None:
    """
    Nothing must be written: without routes everything is a 404.
    """
    config = read("")
    assert config.listen.clients == (Listener("tcp:4000"),)
    assert config.drain_timeout_s == 30
    assert config.route == ()


def test_source_and_digest() -> None:
    """
    The digest tells two texts apart, and nothing else.
    """
    one, same, other = read("# a"), parse("# a", "elsewhere.toml", {"X": "y"}), read("# b")
    assert one.source == "gateway.toml"
    assert one.digest == same.digest != other.digest
    assert len(one.digest) == 12


def test_units_become_seconds_and_bytes() -> None:
    """
    Fields that end in a unit are written without it.
    """
    config = read('[limits]\nmax_body = "10MB"\nmax_head = 65536\nidle_timeout = "1.5m"\n')
    assert config.limits.max_body_bytes == 10_000_000
    assert config.limits.max_head_bytes == 65536
    assert config.limits.idle_timeout_s == 90


def test_short_forms() -> None:
    """
    A string stands for an array of one, and for a table with one key that matters.
    """
    config = read(
        '[listen]\nclients = ["tcp:1", { endpoint = "tcp:2" }]\nadmin = "unix:/run/admin"\n'
        + ISSUER
        + '[upstream.players]\nhttp = "http://h:1"\nhealth = "/up"\n'
    )
    assert [listener.endpoint for listener in config.listen.clients] == ["tcp:1", "tcp:2"]
    assert config.listen.admin == ("unix:/run/admin",)
    assert config.auth.issuer[0].audience == ("b",)
    assert config.upstream[0].health is not None
    assert config.upstream[0].health.path == "/up"
    assert read('[listen]\nclients = "tcp:7"\n').listen.clients == (Listener("tcp:7"),)


def test_tables_by_name_and_by_place() -> None:
    """
    An upstream's name is its table's; top-level scalars are in ``[gateway]``; keys are ``[[admin.key]]``.
    """
    config = read(
        '[gateway]\ndrain_timeout = "5s"\nmin_drain = "0s"\nserver = "edge"\n'
        '[[admin.key]]\nname = "a"\nsecret = "0123456789abcdef"\nscopes = ["read"]\n'
        '[upstream.b]\nhttp = "http://h:1"\n[upstream.a]\nhttp = "http://h:1"\n'
        'identity_headers = { X-User-Roles = "claims.roles", X-Team = "claims.team" }\n'
    )
    assert (config.drain_timeout_s, config.min_drain_s, config.server) == (5, 0, "edge")
    assert [upstream.name for upstream in config.upstream] == ["b", "a"]
    assert config.upstream[1].identity_headers == (("X-User-Roles", "claims.roles"), ("X-Team", "claims.team"))
    assert config.admin_key[0].scopes == ("read",)


def test_networks() -> None:
    """
    Networks and single addresses, of both families.
    """
    config = read('[listen]\ntrusted_proxies = ["10.0.0.0/8", "2001:db8::/32", "127.0.0.1"]\n')
    assert config.listen.trusted_proxies == tuple(map(ip_network, ("10.0.0.0/8", "2001:db8::/32", "127.0.0.1/32")))


def test_files_are_relative_to_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Wherever the process stands, and absolute from the start, because a daemon changes its folder.
    """
    (tmp_path / "revoked.jsonl").touch()
    (tmp_path / "gateway.toml").write_text('[auth]\nrevocations_file = "revoked.jsonl"\n')
    assert load(tmp_path / "gateway.toml", {}).auth.revocations_file == tmp_path / "revoked.jsonl"
    monkeypatch.chdir(tmp_path)
    relative = load(Path("gateway.toml"), {}).auth.revocations_file
    assert relative == tmp_path / "revoked.jsonl"
    assert relative is not None
    assert relative.is_absolute()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    """
    Permissions are looked at, too.
    """
    (tmp_path / "revoked.jsonl").touch(mode=0)
    (tmp_path / "gateway.toml").write_text('[auth]\nrevocations_file = "revoked.jsonl"\n')
    with pytest.raises(ConfigErrors, match="cannot be read by this user"):
        load(tmp_path / "gateway.toml", {})


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    """
    Some editors begin a file with one.
    """
    (tmp_path / "gateway.toml").write_bytes(b'\xef\xbb\xbf[log]\nlevel = "error"\r\n')
    assert load(tmp_path / "gateway.toml", {}).log.level == "error"


def test_the_environment_fills_strings_numbers_and_booleans() -> None:
    """
    In quotes, a number or a boolean may come from the environment; a plain quoted number may not.
    """
    text = '[limits]\nconnections = "${MOST}"\nmax_body = "${SIZE:-2MiB}"\n[log]\naccess = "${ACCESS}"\nlevel = "${LEVEL}"\n'
    config = read(text, MOST="70", ACCESS="false", LEVEL="debug")
    assert (config.limits.connections, config.limits.max_body_bytes) == (70, 2**21)
    assert (config.log.access, config.log.level) == (False, "debug")
    with pytest.raises(ConfigErrors, match="expected a whole number"):
        read('[limits]\nconnections = "70"\n')


def test_an_expression_may_have_several_lines() -> None:
    """
    Line ends are refused in every text but an expression.
    """
    config = read(
        ISSUER + '[upstream.a]\nhttp = "http://h:1"\n[[route]]\npath = "/{id}"\nupstream = "a"\n'
        'when = """path.id == claims.sub\n|| "admin" in claims.roles"""\n'
    )
    assert "\n" in (config.route[0].when or "")


def test_a_secret_does_not_show() -> None:
    """
    Neither in a repr nor in a format; only ``reveal`` gives it.
    """
    config = read(ISSUER + f'[[admin.key]]\nname = "a"\nsecret = "{SECRET}"\nscopes = "*"\n')
    secret = config.auth.issuer[0].secret
    assert isinstance(secret, Secret)
    assert secret.reveal() == SECRET
    for text in (
        repr(config),
        str(config),
        f"{secret}",
        f"{secret!r}",
        f"{secret:>5}",
        f"{secret}",
        str([secret]),
    ):
        assert SECRET not in text


def test_routes_of_both_kinds() -> None:
    """
    Routes to gRPC methods stand beside routes that forward.
    """
    config = read(
        ISSUER
        + """
[upstream.players]
http = "http://h:1"
[upstream.game]
grpc = "h:2"
reflection = true
[[route]]
path = "/api/**"
upstream = "players"
strip_prefix = "/api"
[[route]]
path = "/tables/{table_id}/seats/{seat}"
methods = ["PUT"]
upstream = "game"
call = "demo.game.v1.GameService/Sit"
body = "*"
set = { user_id = "claims.sub", idempotency_key = "request.idempotency_key" }
when = "'player' in claims.roles"
[[route]]
service = "demo.game.v1.GameService"
upstream = "game"
"""
    )
    assert config.route[1].set == (("user_id", "claims.sub"), ("idempotency_key", "request.idempotency_key"))
    assert [route.auth for route in config.route] == ["required"] * 3

"""
A configuration shown: complete, and without a secret.
"""

import json

from gateway.config.describe import describe
from gateway.config.load import parse

SECRET = "correct-horse-battery-staple-0123"
TEXT = f"""
[listen]
trusted_proxies = "10.0.0.0/8"

[limits]
max_body = "1MiB"

[[auth.issuer]]
issuer = "a"
audience = "b"
algorithms = "RS256"
jwks_url = "https://user:{SECRET}@id.example/keys"

[[auth.issuer]]
issuer = "c"
audience = "b"
algorithms = "HS256"
secret = "{SECRET}"

[upstream.players]
http = "http://h:1"
health = "/up"
identity_headers = {{ X-User-Roles = "claims.roles" }}

[[admin.key]]
name = "game"
secret = "{SECRET}"
scopes = "read"

[gateway]
drain_timeout = "90s"
"""


def test_it_is_written_as_toml_has_it() -> None:
    """
    Keys, units and names are those of the file; defaults are included, what is not set is left out.
    """
    shown = describe(parse(TEXT, "a.toml", {}))
    assert shown["limits"]["max_body"] == "1MiB"
    assert shown["limits"]["idle_timeout"] == "75s"
    assert shown["gateway"] == {"drain_timeout": "90s", "drain_window": "10s", "min_drain": "0s", "server": "gateway"}
    assert shown["upstream"]["players"]["health"]["path"] == "/up"
    assert shown["upstream"]["players"]["identity_headers"] == {"X-User-Roles": "claims.roles"}
    assert shown["listen"]["trusted_proxies"] == ["10.0.0.0/8"]
    assert "cookie" not in shown["auth"]


def test_no_secret_is_shown() -> None:
    """
    Secrets are ``***``, and so is a password in a URL.
    """
    config = parse(TEXT, "a.toml", {})
    shown = describe(config)
    assert SECRET not in json.dumps(shown)
    assert shown["auth"]["issuer"][0]["jwks_url"] == "https://***@id.example/keys"
    assert shown["auth"]["issuer"][1]["secret"] == "***"
    assert shown["admin"]["key"] == [{"name": "game", "secret": "***", "scopes": ["read"], "channels": []}]


def test_what_is_shown_can_be_read_again() -> None:
    """
    Where nothing is hidden, the shown values are a configuration that means the same.
    """
    plain = '[log]\nlevel = "error"\n[limits]\nmax_body = "3MB"\nidle_timeout = "1500ms"\n'
    config = parse(plain, "a.toml", {})
    shown = describe(config)
    text = "".join(
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in shown[name].items())
        for name in ("log", "limits", "gateway")
    )
    again = parse(text, "a.toml", {})
    assert (again.log, again.limits, again.drain_timeout_s) == (config.log, config.limits, config.drain_timeout_s)

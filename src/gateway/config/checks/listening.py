"""
Endpoints, TLS, the admin port and its keys, limits.
"""

from __future__ import annotations

import re

from gateway.config.endpoints import BadEndpoint, Endpoint, read_endpoint
from gateway.config.faults import KeyPath, dotted
from gateway.config.sections import Config, Listener
from gateway.config.walk import Walk

__all__ = ["check"]

SHORTEST_KEY = 16

_host_name = re.compile(r"[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]").fullmatch
_server_name = re.compile(r"(?:\*\.)?[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?").fullmatch
_product = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~/-]+").fullmatch


def check(config: Config, walk: Walk) -> None:
    """
    Report what is wrong with where and how the gateway listens.
    """
    listen = config.listen
    found: list[tuple[KeyPath, Endpoint]] = []
    for index, listener in enumerate(listen.clients):
        path: KeyPath = ("listen", "clients", index)
        _listener(listener, path, walk)
        if (*path, "endpoint") not in walk.broken:
            _endpoint(listener.endpoint, path, found, walk)
    if not listen.clients:
        walk.fault(("listen", "clients"), "must not be empty: without a clients' port nothing is served")
    for index, text in enumerate(listen.admin):
        path = ("listen", "admin", index)
        endpoint = _endpoint(text, path, found, walk)
        if endpoint is not None and not endpoint.loopback and not config.admin_key:
            walk.fault(
                path,
                f"{text} can be reached from beyond this machine, and there is no [[admin.key]]; "
                f"add one, or bind it with {endpoint.kind}:{endpoint.port}:interface=127.0.0.1"
                if endpoint.kind == "tcp"
                else f"{text} may be reached from beyond this machine, and there is no [[admin.key]]; add one",
                ("admin", "key"),
            )
    for index, text in enumerate(listen.metrics):
        _endpoint(text, ("listen", "metrics", index), found, walk)
    if listen.api is not None:
        _api(listen.api, found, config, walk)
    for index, name in enumerate(listen.admin_hosts):
        if not _host_name(name):
            walk.fault(("listen", "admin_hosts", index), f"{name!r} is no host name; write it without scheme and port")
    _keys(config, walk)
    limits = config.limits
    if limits.max_target_bytes > limits.max_head_bytes:
        walk.fault(
            ("limits", "max_target"),
            "is larger than max_head, which holds the target: it would never be reached",
            ("limits", "max_head"),
        )
    if not _product(config.server):
        walk.fault(("gateway", "server"), f"{config.server!r} is no product name; write one word, such as gateway")


def _endpoint(text: str, path: KeyPath, found: list[tuple[KeyPath, Endpoint]], walk: Walk) -> Endpoint | None:
    try:
        endpoint = read_endpoint(text)
    except BadEndpoint as bad:
        walk.fault(path, f"{text!r}: {bad}")
        return None
    for other, taken in found:
        if endpoint.collides(taken):
            walk.fault(path, f"{text} is already listened on by {dotted(other)}; each needs its own", other)
            break
    found.append((path, endpoint))
    return endpoint


def _api(text: str, found: list[tuple[KeyPath, Endpoint]], config: Config, walk: Walk) -> None:
    """An address as gRPC writes it, which is not an endpoint string."""
    path: KeyPath = ("listen", "api")
    if text.startswith("unix:"):
        if not text.startswith("unix:/"):
            walk.fault(path, f"{text!r}: the path of a unix socket begins with /, such as unix:/run/gw-api.sock")
    else:
        host, _, port = text.rpartition(":")
        numeric = port.isascii() and port.isdecimal() and int(port) < 65536
        if not numeric or not _host_name(host) or host in ("tcp", "tcp6"):
            walk.fault(path, f"{text!r} is no address; write 127.0.0.1:10000, [::1]:10000 or unix:/run/gw-api.sock")
            return
        interface = "" if host in ("0.0.0.0", "[::]") else host.strip("[]")
        for other, taken in found:
            if Endpoint("tcp", int(port), interface).collides(taken):
                walk.fault(path, f"{text} is already listened on by {dotted(other)}; each needs its own", other)
                break
    if not config.admin_key:
        walk.fault(path, "can be called by nobody: there is no [[admin.key]]; add one", ("admin", "key"))


def _listener(listener: Listener, path: KeyPath, walk: Walk) -> None:
    if not listener.certificate:
        for key, given in (
            ("client_ca_file", listener.client_ca_file is not None),
            ("client_certificate", listener.client_certificate != "none"),
        ):
            if given:
                walk.fault(
                    (*path, key),
                    "only matters with TLS, and this listener has no certificate",
                    (*path, "certificate"),
                )
        return
    wanted = listener.client_certificate != "none"
    if wanted and listener.client_ca_file is None:
        walk.fault(
            (*path, "client_certificate"),
            f"is {listener.client_certificate!r}, but client_ca_file does not say whose certificates are accepted",
            (*path, "client_ca_file"),
        )
    if not wanted and listener.client_ca_file is not None:
        walk.fault(
            (*path, "client_ca_file"),
            'is never used: client_certificate is "none"; write "required" or "optional"',
            (*path, "client_certificate"),
        )
    for number, certificate in enumerate(listener.certificate):
        for index, name in enumerate(certificate.names):
            if not _server_name(name):
                walk.fault((*path, "certificate", number, "names", index), f"{name!r} is no server name")


def _keys(config: Config, walk: Walk) -> None:
    names: dict[str, int] = {}
    secrets: dict[str, int] = {}
    for index, key in enumerate(config.admin_key):
        path: KeyPath = ("admin", "key", index)
        if key.name in names:
            walk.fault((*path, "name"), f"{key.name!r} is the name of admin.key[{names[key.name]}] already")
        names.setdefault(key.name, index)
        secret = key.secret.reveal()
        if len(secret) < SHORTEST_KEY:
            walk.fault(
                (*path, "secret"),
                f"is shorter than {SHORTEST_KEY} characters and could be guessed; `openssl rand -hex 32` makes one",
            )
        elif secret in secrets:
            walk.fault((*path, "secret"), f"is the secret of admin.key[{secrets[secret]}] too: they could not be told")
        secrets.setdefault(secret, index)

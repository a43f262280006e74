"""
The support console: where it may listen, and who may come in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gateway.config.console_users import load_users
from gateway.config.endpoints import BadEndpoint, Endpoint, read_endpoint
from gateway.config.faults import ConfigErrors, KeyPath, dotted
from gateway.config.sections import Config
from gateway.config.walk import Walk

__all__ = ["check"]

_MOST_SHOWN: Final = 20


def check(config: Config, walk: Walk) -> None:
    """
    Report what is wrong with where it listens, and every fault of its users' file.
    """
    section = config.console
    if section.ssh is None and section.telnet is None:
        return
    found: list[tuple[KeyPath, Endpoint]] = list(_others(config))
    for name, text in (("ssh", section.ssh), ("telnet", section.telnet)):
        if text is None:
            continue
        path: KeyPath = ("console", name)
        try:
            endpoint = read_endpoint(text)
        except BadEndpoint as bad:
            walk.fault(path, f"{text!r}: {bad}")
            continue
        if name == "telnet" and not endpoint.loopback:
            walk.fault(
                path,
                f"{text} can be reached from beyond this machine, and telnet sends passwords as they are; bind it with "
                f"tcp:{endpoint.port or 4023}:interface=127.0.0.1 or unix:/path, or use ssh",
            )
        for other, taken in found:
            if endpoint.collides(taken):
                walk.fault(path, f"{text} is already listened on by {dotted(other)}; each needs its own", other)
                break
        found.append((path, endpoint))
    folder = section.host_key_folder
    if folder is not None and not folder.is_dir():
        walk.fault(("console", "host_key_folder"), f"there is no folder {folder}")
    _users(config, walk)


def _others(config: Config) -> Iterator[tuple[KeyPath, Endpoint]]:
    listen = config.listen
    for name, texts in (
        ("clients", [listener.endpoint for listener in listen.clients]),
        ("admin", listen.admin),
        ("metrics", listen.metrics),
    ):
        for index, text in enumerate(texts):
            try:
                yield ("listen", name, index), read_endpoint(text)
            except BadEndpoint:
                continue  # Reported where endpoints are.


def _users(config: Config, walk: Walk) -> None:
    section = config.console
    path: KeyPath = ("console", "users_file")
    if section.users_file is None:
        walk.fault(("console",), "nobody could come in: name a users_file", path)
        return
    if not section.users_file.is_file():
        return  # Reported with the other files.
    try:
        users = load_users(section.users_file)
    except ConfigErrors as errors:
        for line in str(errors).splitlines()[:_MOST_SHOWN]:
            walk.fault(path, line)
        return
    if users and section.telnet is not None and not any(user.password for user in users):
        walk.fault(("console", "telnet"), f"nobody in {section.users_file} has a password", path)
    if section.python and section.ssh is None:
        walk.fault(("console", "python"), "is only had over ssh", ("console", "ssh"))

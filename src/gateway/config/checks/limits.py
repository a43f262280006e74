"""
Limits: sizes that fit each other, and policies that can count what they name.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Final

from gateway.config.checks.realtime import CLIENT_ROOTS
from gateway.config.checks.routes import REQUEST_ROOTS
from gateway.config.expressions import check as check_expression
from gateway.config.faults import KeyPath
from gateway.config.limit_sections import LimitPolicy
from gateway.config.sections import Config
from gateway.config.walk import Walk, suggest
from gateway.core.rate_headers import NAME

__all__ = ["COMMANDS", "KEYS", "check", "roots_of"]

KEYS: Final = ("address", "user", "route", "channel", "command", "api_key")
"""Keys that are words."""

COMMANDS: Final = (
    *("subscribe", "unsubscribe", "publish", "presence", "presence_stats", "history", "rpc", "send"),
    *("refresh", "sub_refresh", "ping"),
)
"""What a policy may name."""

_KNOWN: Final = {
    "requests": frozenset(("address", "user", "route")),
    "connect": frozenset(("address", "user")),
    "frames": frozenset(("address", "user")),
    "commands": frozenset(("address", "user", "channel", "command")),
    "auth_failures": frozenset(("address",)),
    "server_api": frozenset(("api_key", "command")),
}
"""What is known of a caller, by what is counted."""

_ROOTS: Final = {
    "requests": REQUEST_ROOTS,
    "connect": CLIENT_ROOTS,
    "frames": CLIENT_ROOTS,
    "commands": CLIENT_ROOTS,
}

_name = re.compile(NAME).fullmatch


def roots_of(policy: LimitPolicy) -> frozenset[str]:
    """
    What a key that is an expression may name: what is known wherever *policy* counts.
    """
    return frozenset.intersection(*(frozenset(_ROOTS.get(on, ())) for on in policy.on))


def check(config: Config, walk: Walk) -> None:
    """
    Report what is wrong with the policies.
    """
    for policy in config.limits.policy:
        path: KeyPath = ("limits", "policy", policy.name)
        if not _name(policy.name):
            walk.fault(path, "a name has 1 to 64 printable ASCII characters, and neither quotes nor backslashes")
        _keys(policy, path, walk)
        _what(config, policy, path, walk)
        if "frames" in policy.on and policy.when_store_away != "local":
            walk.fault(
                (*path, "when_store_away"), "frames are counted here first: only local can hold for them", (*path, "on")
            )


def _keys(policy: LimitPolicy, path: KeyPath, walk: Walk) -> None:
    here = (*path, "key")
    roots = roots_of(policy)
    for index, key in enumerate(policy.key):
        if key in KEYS:
            for on in policy.on:
                if key not in _KNOWN[on]:
                    known = ", ".join(word for word in KEYS if word in _KNOWN[on])
                    walk.fault(here, f"{key} is not known of {on}; known is: {known}", (*path, "on"))
        elif not roots:
            walk.fault((*here, index), f"{key!r} is no key here{suggest(key, KEYS)}", (*path, "on"))
        else:
            for fault in check_expression(key, roots):
                walk.fault((*here, index), f"is neither {', '.join(KEYS)} nor an expression: {fault}", (*path, "on"))


def _what(config: Config, policy: LimitPolicy, path: KeyPath, walk: Walk) -> None:
    if policy.routes and "requests" not in policy.on:
        walk.fault((*path, "routes"), "is only used where requests are counted", (*path, "on"))
    for name in ("channels", "commands", "methods"):
        if getattr(policy, name) and "commands" not in policy.on:
            walk.fault((*path, name), 'is only used where commands are counted: on = "commands"', (*path, "on"))
    for index, command in enumerate(policy.commands):
        if command not in COMMANDS:
            walk.fault((*path, "commands", index), f"{command!r} is no command{suggest(command, COMMANDS)}")
    patterns = [channel.pattern for channel in config.channels]
    for index, pattern in enumerate(policy.channels):
        if pattern not in patterns and ("channels",) not in walk.broken:
            walk.fault(
                (*path, "channels", index), f"no channels have the pattern {pattern!r}{suggest(pattern, patterns)}"
            )
    methods = [method.method for method in config.rpc]
    for index, glob in enumerate(policy.methods):
        if not any(fnmatchcase(method, glob) or fnmatchcase(glob, method) for method in methods):
            walk.fault((*path, "methods", index), f"no method is like {glob!r}{suggest(glob, methods)}")
    if any(route.service for route in config.route) or ("route",) in walk.broken:
        return  # Their paths stand in descriptors.
    names = [name for route in config.route for name in (route.name, route.path) if name]
    names += [path for socket in config.websocket for path in (socket.path, socket.sse, socket.emulation) if path]
    for index, glob in enumerate(policy.routes):
        if not any(fnmatchcase(name, glob) for name in names):
            walk.fault((*path, "routes", index), f"no route is like {glob!r}{suggest(glob, names)}")

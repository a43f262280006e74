"""
What a client is, by what it says of itself: its SDK's name, then its user agent.

User agents are read by ua-parser, whose rules the ua-parser project keeps for many languages. What was read is remembered,
within a bound; a user agent that was never seen costs about 50 µs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from ua_parser import Parser
from ua_parser.loaders import load_builtins
from ua_parser.regex import Resolver

from gateway.core.client_types import OTHER, type_by_name, type_by_sdk

__all__ = ["Agent", "Agents"]

REMEMBERED: Final = 4096
"""User agents that are remembered; each is at most 512 signs."""

_MOBILE: Final = frozenset(("iOS", "Android", "Windows Phone", "KaiOS", "HarmonyOS", "Tizen"))
_DESKTOP: Final = frozenset(("Windows", "Mac OS X", "Linux", "Ubuntu", "Chrome OS", "Fedora", "Debian"))
_OF_NAMES: Final = {
    **dict.fromkeys(("ios", "iphone", "ipad"), "iOS"),
    "android": "Android",
    "windows": "Windows",
    "macos": "Mac OS X",
    "linux": "Linux",
}
_console = re.compile(r"PlayStation|Xbox|Nintendo").search
_application = re.compile(r"Electron/|\bnwjs\b").search
_server = re.compile(
    r"(?i)\b(?:python|go-http-client|node|java|curl|wget|ruby|php|perl|\.net|axios|aiohttp|httpx)"
).match
_words = re.compile(r"[a-z]+[0-9]*").findall


class Agent(NamedTuple):
    """
    What a client is; words that are not known are empty.
    """

    client_type: str
    os: str
    browser: str


class _Read(NamedTuple):
    os: str
    browser: str
    spider: bool


class Agents:
    """
    Tells what clients are. Making it reads the rules, which takes a quarter of a second.
    """

    def __init__(self) -> None:
        self._parser = Parser(Resolver(load_builtins()))
        self._read = lru_cache(REMEMBERED)(self._parsed)

    def read(self, name: str, user_agent: str, known: Mapping[str, str]) -> Agent:
        """
        Say what the client is that calls itself *name*.

        Args:
            known: By name, the kind, as the configuration has it.
        """
        found = self._read(user_agent)
        os = found.os or next((_OF_NAMES[word] for word in _words(name.lower()) if word in _OF_NAMES), "")
        page = user_agent.startswith("Mozilla/") and not _console(user_agent) and not _application(user_agent)
        browses = page and bool(found.browser)
        client_type = type_by_name(name, known) or _by_agent(user_agent, found, browses=browses) or type_by_sdk(name)
        if not client_type:
            client_type = "mobile" if os in _MOBILE else "desktop" if os in _DESKTOP else OTHER
        return Agent(client_type, os, found.browser if browses else "")

    def _parsed(self, user_agent: str) -> _Read:
        parsed = self._parser.parse(user_agent)
        return _Read(
            parsed.os.family if parsed.os is not None else "",
            parsed.user_agent.family if parsed.user_agent is not None else "",
            parsed.device is not None and parsed.device.family == "Spider",
        )


def _by_agent(user_agent: str, found: _Read, *, browses: bool) -> str:
    """What only the user agent can tell; empty if it leaves it open."""
    if found.spider:
        return "bot"
    if _console(user_agent):
        return "console"
    if _application(user_agent):
        return "desktop"
    if browses:
        return "web"
    return "server" if _server(user_agent) else ""

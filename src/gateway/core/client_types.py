"""
What kind of client somebody is, by what its SDK calls itself.

A name is the client's own word (``connect`` has it), so it says something about it and nothing about
its rights. Names are read word by word: ``tetris-ios``, ``unity_ps5`` and ``bot/simple`` say enough.
What a name leaves open the user agent may tell (``events.agents``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

__all__ = ["CLIENT_TYPES", "OTHER", "type_by_name", "type_by_sdk"]

CLIENT_TYPES: Final = ("web", "mobile", "desktop", "console", "server", "bot", "other")

OTHER: Final = "other"

_WORDS: Final = {
    **dict.fromkeys(("bot", "bots", "spider", "crawler", "loadtest"), "bot"),
    **dict.fromkeys(("console", "ps4", "ps5", "playstation", "xbox", "switch", "nintendo"), "console"),
    **dict.fromkeys(("mobile", "ios", "iphone", "ipad", "android"), "mobile"),
    **dict.fromkeys(("desktop", "windows", "macos", "linux", "electron", "steam"), "desktop"),
    **dict.fromkeys(("web", "browser", "webgl", "html5"), "web"),
    **dict.fromkeys(("server", "backend", "service"), "server"),
}
"""By word, the kind. Of several words in a name the first kind in the order of ``_ORDER`` counts."""

_SDKS: Final = {"swift": "mobile", "java": "mobile", "dart": "mobile", "go": "server", "python": "server"}
"""What the official SDKs call themselves if nobody gives them another name, and where most of each are."""

_ORDER: Final = ("bot", "console", "mobile", "desktop", "web", "server")

_words = re.compile(r"[a-z]+[0-9]*").findall


def type_by_name(name: str, known: Mapping[str, str]) -> str:
    """
    Say the kind of the client that calls itself *name*; empty if the name leaves it open.

    Args:
        known: By whole name, the kind: the configuration's word comes first.
    """
    kind = known.get(name)
    if kind is not None:
        return kind
    kinds = {_WORDS[word] for word in _words(name.lower()) if word in _WORDS}
    return next((kind for kind in _ORDER if kind in kinds), "")


def type_by_sdk(name: str) -> str:
    """
    Say where most clients are that use the official SDK *name*; empty if it is none, or is used everywhere.
    """
    return _SDKS.get(name, "")

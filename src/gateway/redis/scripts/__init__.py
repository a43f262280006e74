"""
What Redis runs for us, each in a file that says KEYS, ARGV, what it returns and what it costs.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

__all__ = ["Script", "load"]


class Script:
    """
    A Lua script. Scripts with the same name are one object, compared by identity.

    Attributes:
        sha: Its name at the server: SHA-1 of the text, hexadecimal.
    """

    __slots__ = ("name", "sha", "text")

    def __init__(self, name: str, text: bytes) -> None:
        self.name = name
        self.text = text
        self.sha = hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()


@cache
def load(name: str) -> Script:
    """
    Read ``NAME.lua`` of this folder.
    """
    return Script(name, files(__name__).joinpath(f"{name}.lua").read_bytes())

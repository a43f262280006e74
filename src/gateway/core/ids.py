"""
Request ids: made here, or taken from a peer that is trusted.
"""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["Bits", "acceptable", "request_id"]

Bits = Callable[[int], int]
"""Random bits, as ``random.Random().getrandbits``: so many of them, as a number."""

_acceptable = re.compile(rb"[A-Za-z0-9._~:/+=@\-]{1,128}").fullmatch


def request_id(bits: Bits) -> str:
    """
    Make an id: 32 lower-case hexadecimal digits.
    """
    return f"{bits(128):032x}"


def acceptable(value: bytes) -> bool:
    """
    Whether a trusted peer's id can be taken over: 1 to 128 signs that need no escaping in a log or URL.
    """
    return _acceptable(value) is not None

"""
Deadlines as clients write them: ``grpc-timeout``, one to eight digits and a unit.

Source: gRPC over HTTP/2, "Requests" (PROTOCOL-HTTP2).
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["parse_timeout"]

_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_timeout = re.compile(rb"([0-9]{1,8})([HMSmun])").fullmatch


def parse_timeout(value: bytes) -> float | None:
    """
    Read a timeout in seconds; None when it is malformed.
    """
    found = _timeout(value)
    return int(found[1]) * _UNITS[found[2]] if found is not None else None

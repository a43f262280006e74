"""
What answers say of limits: ``RateLimit`` and ``RateLimit-Policy``, structured fields (RFC 9651) of the IETF draft
"RateLimit header fields for HTTP" (draft-ietf-httpapi-ratelimit-headers, revision 10), and its problem types.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil, isfinite

__all__ = ["NAME", "QUOTA_EXCEEDED", "REDUCED_CAPACITY", "limit_item", "policy_item", "retry_after", "wait_s"]

NAME = r"[ !#-\[\]-~]{1,64}"
"""Names that need no escape in a structured string."""

QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
REDUCED_CAPACITY = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"

LONGEST_S = 7 * 86400


def policy_item(name: str, number: int, per_s: float) -> bytes:
    """
    Write a policy: so many (``q``) in so many whole seconds (``w``).
    """
    if per_s < 1:
        number, per_s = int(number / per_s), 1
    return f'"{name}";q={number};w={ceil(per_s)}'.encode("ascii")


def limit_item(name: str, remaining: int, wait: float) -> bytes:
    """
    Write how a policy stands: ``r`` are left, and after ``t`` seconds there are more.
    """
    return f'"{name}";r={remaining};t={retry_after([wait])}'.encode("ascii")


def retry_after(waits_s: Iterable[float]) -> int:
    """
    Whole seconds after the longest of *waits_s*: at least 1, at most a week.
    """
    longest = max(waits_s, default=0.0)
    return max(1, ceil(min(longest, LONGEST_S))) if isfinite(longest) else LONGEST_S


def wait_s(full_after_s: float, number: int, per_s: float, burst: int = 0) -> float:
    """
    When one unit can be spent of a budget that is full after *full_after_s*; 0 if now.
    """
    interval = per_s / number
    return max(0.0, full_after_s - interval * ((burst or number) - 1))

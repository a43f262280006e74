"""
Privacy: a hash that nobody without its key can undo.
"""

from __future__ import annotations

from typing import Final

from gateway.config.sections import Config
from gateway.config.walk import Walk

__all__ = ["check"]

_LEAST: Final = 16


def check(config: Config, walk: Walk) -> None:
    """
    Report on *walk* what does not fit.
    """
    section = config.privacy
    hashed = [name for name in ("address", "user") if getattr(section, name) == "hash"]
    if hashed and section.key is None and ("privacy", "key") not in walk.broken:
        walk.fault(("privacy", hashed[0]), "a hash needs a key beside it: without one every address can be tried")
    if section.key is not None and len(section.key.reveal()) < _LEAST:
        walk.fault(("privacy", "key"), f"is shorter than {_LEAST} signs")
    elif section.key is not None and not hashed:
        walk.fault(("privacy", "key"), "is never used: neither address nor user is hashed")

"""
Revocations from a file: one JSON object a line.

Either ``{"token_id": "…", "until": 1700000000}``, where ``jti`` and ``sid`` may stand for ``token_id``, or
``{"subject": "…", "issued_before": 1700000000, "until": 1700086400}``; times are seconds since the epoch.
Empty lines and lines that begin with ``#`` are left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from gateway.auth.compact import parse_object
from gateway.core.identity import Revocation
from gateway.ports.identity import Revocations

__all__ = ["RevocationFault", "load_revocations"]

_TOKEN: Final = ("token_id", "jti", "sid")
_MOST_SHOWN: Final = 20
_END_OF_TIME: Final = 253402300800.0


class RevocationFault(ValueError):
    """
    A file of revocations cannot be taken; each fault stands with its line number.
    """


def load_revocations(path: Path, revocations: Revocations, now: float) -> int:
    """
    Add all that the file holds, or nothing when a line is wrong.

    Blocks while it reads: at start and at reload only.

    Args:
        now: Seconds since the epoch; what ended before is left out.

    Returns:
        How many were added.

    Raises:
        RevocationFault: lines are wrong; every one is named.
        OSError: the file cannot be read.
    """
    adding: list[Revocation] = []
    faults: list[str] = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        text = line.strip()
        if not text or text.startswith(b"#"):
            continue
        try:
            revocation = _read(parse_object(text))
        except RecursionError:
            faults.append(f"{path}:{number}: is nested too deeply")
        except UnicodeDecodeError:
            faults.append(f"{path}:{number}: is not UTF-8")
        except ValueError as error:
            faults.append(f"{path}:{number}: {error}")
        else:
            if revocation.until > now:
                adding.append(revocation)
    if faults:
        more = len(faults) - _MOST_SHOWN
        raise RevocationFault("\n".join([*faults[:_MOST_SHOWN], *([f"and {more} more"] if more > 0 else [])]))
    for revocation in adding:
        revocations.add(revocation)
    return len(adding)


def _read(entry: dict[str, Any]) -> Revocation:
    named = [name for name in (*_TOKEN, "subject") if name in entry]
    if len(named) != 1:
        raise ValueError("exactly one of token_id, jti, sid and subject is needed")
    (name,) = named
    value = entry[name]
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is not a text")
    known = {name, "until"} if name in _TOKEN else {name, "until", "issued_before"}
    unknown = sorted(set(entry) - known)
    if unknown:
        raise ValueError(f"{unknown[0]!r} has no meaning beside {name}")
    until = _time(entry, "until")
    if name in _TOKEN:
        return Revocation(until, token_id=value)
    return Revocation(until, subject=value, issued_before=_time(entry, "issued_before"))


def _time(entry: dict[str, Any], name: str) -> float:
    if name not in entry:
        raise ValueError(f"{name} is missing")
    value = entry[name]
    if type(value) not in (int, float) or not 0 <= value < _END_OF_TIME:
        raise ValueError(f"{name} is not a time in seconds since the epoch")
    return float(value)

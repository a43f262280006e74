"""
How a session is written in Redis: a head that scripts read, and what they hand on as it is.

``state TAB instance TAB client TAB seen TAB until TAB cause TAB start TAB device``, then on lines of
their own the body (user, device and facts of the first connection, JSON), the facts of the newest one
if it is another, ``resumes TAB past``, and the note. Times are milliseconds, the device is a digest.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import msgspec

from gateway.ports.sessions import SessionRecord

__all__ = ["body_of", "device_of", "facts_of", "record_of", "tally_of"]

_ENCODER = msgspec.json.Encoder()
_BODY = msgspec.json.Decoder(tuple[str, str, dict[str, Any]])
_FACTS = msgspec.json.Decoder(dict[str, Any])


def device_of(record: SessionRecord) -> str:
    """
    Make the digest under which sessions of the same user and device are found; empty for anonymous ones.
    """
    if not record.user:
        return ""
    whole = f"{len(record.user)}:{record.user}{record.device}"
    return blake2b(whole.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def body_of(record: SessionRecord) -> bytes:
    """
    Write what does not change while a session lives.
    """
    return _ENCODER.encode((record.user, record.device, record.facts))


def facts_of(record: SessionRecord) -> bytes:
    """
    Write what its newest connection adds.
    """
    return _ENCODER.encode(record.facts)


def tally_of(record: SessionRecord) -> bytes:
    """
    Write how often it has gone on, and what its connections did.
    """
    return b"%d\t%b" % (record.resumes, record.past)


def record_of(id_: bytes, value: bytes) -> SessionRecord:
    """
    Read a session.
    """
    head, body, facts, tally, note = value.split(b"\n", 4)
    _, instance, client, seen, _, cause, started, _ = head.decode("utf-8").split("\t")
    resumes, _, past = tally.partition(b"\t")
    user, device, first = _BODY.decode(body)
    return SessionRecord(
        id=id_.decode("ascii"),
        user=user,
        device=device,
        instance=instance,
        client=client,
        started_at=int(started) / 1000,
        seen_at=int(seen) / 1000,
        facts={**_FACTS.decode(facts), **first} if facts else first,
        note=note,
        cause=cause,
        resumes=int(resumes),
        past=past,
    )

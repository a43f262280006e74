"""
Logging in, as a demo does it: any name will do, and the token says it.
"""

from __future__ import annotations

import json
import os
import re
import time
from typing import Any

import jwt

__all__ = ["LoginRefused", "sign_in"]

ISSUER = "https://id.demo.example"
AUDIENCE = "gateway"
LASTS_S = 12 * 3600

_not_in_ids = re.compile(r"[^a-z0-9]+")
_device = re.compile(r"[A-Za-z0-9-]{8,64}")


class LoginRefused(ValueError):
    """
    Nobody can be called that.
    """


def sign_in(body: bytes) -> dict[str, Any]:
    """
    Make a token.

    Args:
        body: ``{"name": …, "device": …}``; the device is the page's own random id, so that a lost
            connection of it is known again.

    Raises:
        LoginRefused: the body says no name of 1 to 24 printable letters.
    """
    try:
        said = json.loads(body)
        name, device = said["name"].strip(), said.get("device", "")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LoginRefused('send {"name": "Alice"}') from error
    user = _not_in_ids.sub("-", name.lower()).strip("-")
    if not 1 <= len(name) <= 24 or not name.isprintable() or not user:
        raise LoginRefused("a name has 1 to 24 letters")
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": user,
        "name": name,
        "roles": ["player"],
        "iat": now,
        "exp": now + LASTS_S,
    }
    if isinstance(device, str) and _device.fullmatch(device):
        claims["sid"] = device
    key = os.environ.get("JWT_SECRET", "for-the-demo-only-and-known-to-all")
    return {"token": jwt.encode(claims, key, "HS256"), "user": user, "name": name}

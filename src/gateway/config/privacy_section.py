"""
The section of privacy: how people's addresses and ids are written down.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from gateway.config.fields import Secret
from gateway.config.fields import key as _
from gateway.core.privacy import WHOLE
from gateway.core.privacy import Privacy as Written

__all__ = ["Place", "Privacy"]

Place = Literal["logs", "traces", "events"]


@dataclass(frozen=True, slots=True)
class Privacy:
    """How clients' addresses and users' ids are written into whatever leaves the gateway and stays somewhere."""

    address: Literal["whole", "short", "hash"] = field(
        default="whole",
        metadata=_("`short`: the network only, /24 of IPv4 and /48 of IPv6. `hash`: keyed, 24 hexadecimal digits."),
    )
    user: Literal["whole", "hash"] = field(default="whole", metadata=_("`hash`: keyed, 24 hexadecimal digits."))
    key: Secret | None = field(
        default=None,
        metadata=_("Key of the hashes, at least 16 signs. With another key nobody can tell who is the same as before."),
    )
    places: tuple[Literal["logs", "traces", "events"], ...] = field(
        default=("logs", "traces", "events"), metadata=_("Where this holds; elsewhere they are whole.")
    )

    def of(self, place: Place) -> Written:
        """
        What holds in *place*.
        """
        if place not in self.places or self.address == self.user == "whole":
            return WHOLE
        return Written(self.address, self.user, self.key.reveal().encode() if self.key is not None else b"")

"""
How the addresses and ids of people are written down: as they are, shortened, or as a keyed hash.

One rule for everything that leaves the process and stays somewhere: log lines, spans, events of sessions. What
decides about a request (limits, rules, backends) never sees this.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv6Address, ip_address
from typing import Final, Literal

__all__ = ["WHOLE", "AddressForm", "Privacy", "UserForm"]

AddressForm = Literal["whole", "short", "hash"]
UserForm = Literal["whole", "hash"]

_BITS: Final = {4: 24, 6: 48}
_DIGEST_BYTES: Final = 12
_REMEMBERED: Final = 4096


class Privacy:
    """
    Writes addresses and user ids in the form that was chosen.

    A hash is 24 hexadecimal digits, the same for the same text wherever the key is the same. Addresses and users
    are hashed apart: a user who is called like an address has another hash.

    Args:
        key: Of the hashes; whoever has it can find out who is meant.

    Attributes:
        whole: Everything stays as it is.
    """

    __slots__ = ("_address", "_key", "_user", "address", "user", "whole")

    def __init__(self, address: AddressForm = "whole", user: UserForm = "whole", key: bytes = b"") -> None:
        self._address = address
        self._user = user
        self._key = blake2b(key).digest()
        self.whole = address == user == "whole"
        # Remembered: the same few write most lines.
        self.address = lru_cache(_REMEMBERED)(self._written_address)
        self.user = lru_cache(_REMEMBERED)(self._written_user)

    def _written_address(self, address: str) -> str:
        """
        Write *address*: an IP address as text, or something else (``unix``, nothing), which says nothing of a person.
        """
        if self._address == "whole":
            return address
        try:
            read = ip_address(address)
        except ValueError:
            return address
        if isinstance(read, IPv6Address) and read.ipv4_mapped is not None:
            read = read.ipv4_mapped
        if self._address == "hash":
            return self._hash(b"address", str(read))
        bits = _BITS[read.version]
        host_bits = read.max_prefixlen - bits
        return f"{type(read)(int(read) >> host_bits << host_bits)}/{bits}"

    def _written_user(self, user: str) -> str:
        """
        Write a user's id; nothing stays nothing.
        """
        return user if self._user == "whole" or not user else self._hash(b"user", user)

    def _hash(self, person: bytes, text: str) -> str:
        data = text.encode("utf-8", "surrogatepass")
        return blake2b(data, digest_size=_DIGEST_BYTES, key=self._key, person=person).hexdigest()


WHOLE: Final = Privacy()
"""Everything as it is."""

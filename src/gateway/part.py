"""
What one process is of a gateway: all of it, the parent of workers, or one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.config.sections import Config
from gateway.web.admin_pages import Operations

__all__ = ["WHOLE", "Part"]


@dataclass(frozen=True, slots=True)
class Part:
    """
    How a process differs from one that is everything.

    Attributes:
        narrow: From a configuration to what of it this process serves.
        tells: From what the admin port would tell to what it tells.
        minting: The private key of minted tokens (PKCS #8, DER), where several must have the same.
        descriptors: What gRPC backends have told of themselves already, by upstream.
    """

    narrow: Callable[[Config], Config] = lambda config: config
    tells: Callable[[Operations], Operations] = lambda operations: operations
    minting: bytes | None = None
    descriptors: Mapping[str, Sequence[bytes]] = field(default_factory=dict)


WHOLE: Final = Part()

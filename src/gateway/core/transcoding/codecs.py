"""
The encoders and decoders of one pool, made once for each combination of options.
"""

from __future__ import annotations

from google.protobuf.descriptor_pool import DescriptorPool

from gateway.core.transcoding.decode import Decoders
from gateway.core.transcoding.encode import Encoders, JsonStyle

__all__ = ["Codecs"]


class Codecs:
    """
    What is compiled from the types of *pool*; shared by all routes to them.
    """

    __slots__ = ("_decoders", "_encoders", "pool")

    def __init__(self, pool: DescriptorPool) -> None:
        self.pool = pool
        self._encoders: dict[JsonStyle, Encoders] = {}
        self._decoders: dict[bool, Decoders] = {}

    def encoders(self, style: JsonStyle | None = None) -> Encoders:
        """Return the encoders that write in *style*."""
        style = style or JsonStyle()
        if style not in self._encoders:
            self._encoders[style] = Encoders(self.pool, style)
        return self._encoders[style]

    def decoders(self, *, ignore_unknown: bool = False) -> Decoders:
        """Return the decoders that refuse, or ignore, what they do not know."""
        if ignore_unknown not in self._decoders:
            self._decoders[ignore_unknown] = Decoders(self.pool, ignore_unknown=ignore_unknown)
        return self._decoders[ignore_unknown]

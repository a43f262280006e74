"""
What no single key can say: whether the sections fit together.
"""

from __future__ import annotations

from gateway.config.sections import Config
from gateway.config.walk import Walk

__all__ = ["check"]


def check(config: Config, walk: Walk) -> None:
    """
    Report on *walk* everything that does not fit.
    """

"""
What no single key can say: whether values make sense, and whether the sections fit together.

Each check reports on the walk, which keeps silent where what a check depends on is broken.
"""

from __future__ import annotations

from gateway.config.checks import (
    browsers,
    console,
    events,
    files,
    identity,
    limits,
    listening,
    privacy,
    realtime,
    routes,
    store,
    tracing,
    upstreams,
    workers,
)
from gateway.config.sections import Config
from gateway.config.walk import Walk

__all__ = ["check"]


def check(config: Config, walk: Walk) -> None:
    """
    Report on *walk* everything that does not fit.
    """
    listening.check(config, walk)
    console.check(config, walk)
    identity.check(config, walk)
    upstreams.check(config, walk)
    routes.check(config, walk)
    browsers.check(config, walk)
    realtime.check(config, walk)
    events.check(config, walk)
    limits.check(config, walk)
    store.check(config, walk)
    workers.check(config, walk)
    tracing.check(config, walk)
    privacy.check(config, walk)
    files.check(config, walk)

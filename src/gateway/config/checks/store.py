"""
The store: a URL that names one, and times that fit together.
"""

from __future__ import annotations

import re

from gateway.config.sections import Config
from gateway.config.units import format_duration
from gateway.config.walk import Walk
from gateway.core.store_url import BadStoreUrl, read_store_url

__all__ = ["check"]

_prefix = re.compile(r"[A-Za-z0-9_.:-]{1,64}").fullmatch


def check(config: Config, walk: Walk) -> None:
    """
    Report on *walk* what does not fit.
    """
    section = config.store
    try:
        url = read_store_url(section.url)
    except BadStoreUrl as bad:
        walk.fault(("store", "url"), str(bad))
        return
    if not _prefix(section.prefix):
        walk.fault(("store", "prefix"), "letters, digits and _ . : - only, at most 64: it begins every key")
    if section.lease_s < 3 * section.beat_s:
        walk.fault(
            ("store", "lease"),
            f"is less than three beats ({format_duration(3 * section.beat_s)}): one that comes late would end all sessions",
        )
    if (section.tls.certificate_file is None) != (section.tls.key_file is None):
        walk.fault(("store", "tls"), "certificate_file and key_file belong together")
    if url.kind != "sentinel" and (section.sentinel_password is not None or section.sentinel_username is not None):
        walk.fault(("store", "url"), "sentinel_username and sentinel_password are for redis+sentinel:// alone")
    if not url.shared and (section.password is not None or section.username is not None):
        walk.fault(("store", "url"), "memory:// asks for no password; which Redis is meant?")

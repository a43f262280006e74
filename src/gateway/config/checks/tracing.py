"""
Traces: a collector that can be reached as it is named.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from gateway.config.sections import Config
from gateway.config.walk import Walk

__all__ = ["check"]

_authority = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*)|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})").fullmatch
_path = re.compile(r"[!-~]*").fullmatch
_name = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*").fullmatch
_value = re.compile(r"[!-~](?:[ -~]*[!-~])?").fullmatch

_EXPECTED: Final = "http://host:port or https://host:port"
_OURS: Final = frozenset(("connection", "content-encoding", "content-length", "content-type", "host", "te"))


def check(config: Config, walk: Walk) -> None:
    """
    Report on *walk* what does not fit.
    """
    section = config.tracing
    if section.otlp is not None and ("tracing", "otlp") not in walk.broken:
        wrong = _endpoint(section.otlp, section.protocol)
        if wrong:
            walk.fault(("tracing", "otlp"), wrong)
    for name, value in section.headers:
        if not _name(name) or name.lower() in _OURS or name.lower().startswith("grpc-"):
            walk.fault(("tracing", "headers", name), f"{name!r} is no header that can be sent along")
        elif not _value(value.reveal()):
            walk.fault(("tracing", "headers", name), "holds what a header cannot: printable ASCII only")
    tls = section.tls
    if tls != type(tls)() and (section.otlp is None or not section.otlp.startswith("https://")):
        walk.fault(("tracing", "tls"), "is never used: otlp does not begin with https://", ("tracing", "otlp"))
    if (tls.certificate_file is None) != (tls.key_file is None):
        has, lacks = ("certificate_file", "key_file") if tls.key_file is None else ("key_file", "certificate_file")
        walk.fault(("tracing", "tls", has), f"needs {lacks} beside it", ("tracing", "tls", lacks))
    if section.batch > section.queue:
        walk.fault(("tracing", "batch"), "is more than queue, the spans that may wait", ("tracing", "queue"))


def _endpoint(url: str, protocol: str) -> str:
    """Say what is wrong with the collector's address; empty if nothing is."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("http", "https"):
        meant = f"; did you mean http://{url}?" if _authority(url) else ""
        return f"expected {_EXPECTED}{meant}"
    if "@" in rest:
        return "credentials do not belong in an address; headers = { Authorization = … } sends them"
    authority, slash, path = rest.partition("/")
    found = _authority(authority)
    if found is None or not 0 < int(found[1]) < 65536:
        return f"the port is missing or none: expected {_EXPECTED}"
    if protocol == "grpc" and path:
        return 'gRPC has no paths; with protocol = "http" there is one'
    if slash and (not _path(path) or urlsplit(url).query or urlsplit(url).fragment):
        return "a path has no query, and no signs that a URL cannot have"
    return ""

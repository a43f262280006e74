"""
What browsers are told: origins that are origins, headers that are headers, and no page let in by mistake.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.config.browser_sections import CORS, OFF, Cors, Headers, completed
from gateway.config.faults import KeyPath
from gateway.config.sections import Config
from gateway.config.walk import Walk
from gateway.core.cors import NAMES
from gateway.core.origins import fault_of

__all__ = ["check", "check_origins"]

_token = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_value = re.compile(r"[!-~](?:[ !-~]*[!-~])?").fullmatch
_method = re.compile(r"[A-Z][A-Z0-9-]*").fullmatch
_NOT_HERE: Final = NAMES | {
    b"connection",
    b"content-length",
    b"transfer-encoding",
    b"upgrade",
    b"date",
    b"server",
    b"vary",
    b"set-cookie",
    b"content-type",
    b"cache-control",
    b"x-request-id",
    b"strict-transport-security",
    b"x-content-type-options",
    b"referrer-policy",
    b"cross-origin-resource-policy",
}
"""Names that ``add`` may not have: another key says them, or the gateway does."""


def check(config: Config, walk: Walk) -> None:
    """
    Report what is wrong with the tables for all and those of routes.
    """
    _cors(config.cors, config.cors, ("cors",), walk)
    _headers(config.headers, ("headers",), walk)
    for index, route in enumerate(config.route):
        _cors(route.cors, completed(route.cors, config.cors), ("route", index, "cors"), walk)
        _headers(route.headers, ("route", index, "headers"), walk)


def check_origins(origins: tuple[str, ...], path: KeyPath, walk: Walk) -> None:
    """
    Report entries of a list of origins that are none.
    """
    for at, origin in enumerate(origins):
        fault = fault_of(origin)
        if fault:
            walk.fault((*path, at), f"{origin!r} {fault}")


def _cors(own: Cors, whole: Cors, path: KeyPath, walk: Walk) -> None:
    check_origins(own.origins or (), (*path, "origins"), walk)
    whole = completed(whole, CORS)
    if "*" in (whole.origins or ()) and whole.credentials and (own.origins is not None or own.credentials is not None):
        key = "origins" if own.origins is not None else "credentials"
        walk.fault((*path, key), "any origin, and credentials: any page could act for its visitor; list the origins")
    if "null" in (whole.origins or ()) and whole.credentials and own.origins is not None:
        walk.fault(
            (*path, "origins"), "every sandboxed page is null: with credentials any page could act for its visitor"
        )
    for at, method in enumerate(own.methods or ()):
        if not _method(method):
            walk.fault((*path, "methods", at), f"{method!r} is no method")
    for key in ("headers", "expose"):
        for at, name in enumerate(getattr(own, key) or ()):
            if not _token(name):
                walk.fault((*path, key, at), f"{name!r} is no name of a header")
            elif name == "*" and key == "expose" and whole.credentials:
                walk.fault(
                    (*path, key, at), "browsers take * by its letter where there are credentials; list the names"
                )


def _headers(section: Headers, path: KeyPath, walk: Walk) -> None:
    for key in ("hsts", "frame_ancestors", "referrer_policy"):
        value = getattr(section, key)
        if value and (not _value(value) or (key == "frame_ancestors" and (";" in value or "," in value))):
            walk.fault((*path, key), f"{value!r} is no value of this header")
    if section.hsts and section.hsts != OFF and not re.search(r"max-age=\d+", section.hsts):
        walk.fault((*path, "hsts"), f"{section.hsts!r} has no max-age=SECONDS")
    for name, value in section.add or ():
        if not _token(name):
            walk.fault((*path, "add", name), f"{name!r} is no name of a header")
        elif name.lower().encode("ascii") in _NOT_HERE:
            walk.fault((*path, "add", name), f"{name} is not added here: another key says it, or the gateway itself")
        elif not _value(value):
            walk.fault((*path, "add", name), f"{value!r} is no value of a header")

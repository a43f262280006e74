"""
From the configuration's tables about browsers to the rules that answers take, for all and for each route.

Part of the composition root: it decides nothing about a request.
"""

from __future__ import annotations

from dataclasses import replace

from gateway.config.browser_sections import CORS, HEADERS, OFF, Headers, completed
from gateway.config.browser_sections import Cors as CorsSection
from gateway.config.realtime_sections import WebSocket
from gateway.config.sections import Config, Route
from gateway.core.browser_rules import BrowserRules, SecurityHeaders
from gateway.core.cors import Cors
from gateway.core.origins import Origins

__all__ = ["origins_of_socket", "rules_for_all", "rules_of_route", "rules_of_socket"]


def rules_for_all(config: Config) -> BrowserRules:
    """
    Make the rules of answers that belong to no route.
    """
    return BrowserRules(_security(config.headers), _cors(config.cors))


def rules_of_route(config: Config, route: Route) -> BrowserRules:
    """
    Make the rules of *route*: its own tables, and what they leave out from those for all.
    """
    return BrowserRules(_security(completed(route.headers, config.headers)), _cors(completed(route.cors, config.cors)))


def rules_of_socket(config: Config, section: WebSocket) -> BrowserRules:
    """
    Make the rules of the paths of *section*: its list of origins is who may connect, and who may read.
    """
    cors = config.cors if section.origins is None else replace(config.cors, origins=section.origins)
    if "cookie" in section.credentials:
        cors = replace(cors, credentials=True)
    elif "*" in (cors.origins or ()):
        # Nothing here is let in by what a browser sends along by itself.
        cors = replace(cors, credentials=False)
    return BrowserRules(_security(config.headers), _cors(cors))


def origins_of_socket(config: Config, section: WebSocket) -> Origins:
    """
    Compile who may connect at *section*: its own list, or else the one for all.
    """
    return Origins((config.cors.origins if section.origins is None else section.origins) or ())


def _cors(section: CorsSection) -> Cors | None:
    section = completed(section, CORS)
    origins = Origins(section.origins or ())
    if not origins:
        return None
    return Cors(
        origins,
        methods=section.methods or (),
        headers=section.headers or (),
        expose=section.expose or (),
        credentials=bool(section.credentials),
        max_age_s=section.max_age_s or 0.0,
        private_network=bool(section.private_network),
    )


def _security(section: Headers) -> SecurityHeaders:
    section = completed(section, HEADERS)
    lines = {
        "X-Content-Type-Options": "nosniff" if section.nosniff else OFF,
        "Referrer-Policy": section.referrer_policy or OFF,
        "Cross-Origin-Resource-Policy": section.resource_policy or OFF,
        **dict(section.add or ()),
    }
    return SecurityHeaders(
        {name: value for name, value in lines.items() if value != OFF},
        hsts=_unless_off(section.hsts),
        frame_ancestors=_unless_off(section.frame_ancestors),
        no_store=bool(section.no_store),
        override=bool(section.override),
    )


def _unless_off(value: str | None) -> str:
    return "" if value is None or value == OFF else value

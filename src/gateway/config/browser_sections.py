"""
The sections about browsers: which pages may read answers, and what browsers are told beside them. See ``config.sections``.

Each key may be left out: a route's table then takes it from the table for all, and that from the default.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal, TypeVar

from gateway.config.fields import key as _

__all__ = ["CORS", "HEADERS", "OFF", "Cors", "Headers", "completed"]


@dataclass(frozen=True, slots=True)
class Cors:
    """
    Pages of other origins. On a route: instead of what holds for all, key by key; see [browsers.md](browsers.md).
    """

    origins: tuple[str, ...] | None = field(
        default=None,
        metadata=_("Who may: `https://play.example`, `https://*.play.example`, or `*`; none if left out."),
    )
    credentials: bool | None = field(
        default=None, metadata=_("Cookies and client certificates may be sent along; `false` if left out.")
    )
    methods: tuple[str, ...] | None = field(
        default=None, metadata=_("Methods that pages may use; all that the path takes if left out.")
    )
    headers: tuple[str, ...] | None = field(
        default=None,
        metadata=_(
            "Request headers that pages may set, `*` for any; if left out `Authorization`, `Content-Type`, "
            "`Idempotency-Key`, `If-Match`, `If-None-Match`."
        ),
    )
    expose: tuple[str, ...] | None = field(
        default=None,
        metadata=_(
            "Headers of answers that pages may read; if left out `ETag`, `Location`, `RateLimit`, `RateLimit-Policy`, "
            "`Retry-After`, `X-Gateway-Error`, `X-Request-Id`."
        ),
    )
    max_age_s: float | None = field(
        default=None,
        metadata=_("How long a browser remembers that it may; 10 min if left out.", least=0, most=86400),
    )
    private_network: bool | None = field(
        default=None,
        metadata=_("Public pages may ask although this is a private network; `false` if left out."),
    )


@dataclass(frozen=True, slots=True)
class Headers:
    """
    Headers that protect browsers, on every answer; `off` leaves one away. On a route: key by key instead.
    """

    hsts: str | None = field(
        default=None,
        metadata=_("`Strict-Transport-Security`, over TLS; `max-age=31536000` if left out."),
    )
    nosniff: bool | None = field(default=None, metadata=_("`X-Content-Type-Options: nosniff`; `true` if left out."))
    frame_ancestors: str | None = field(
        default=None,
        metadata=_(
            "Who may frame pages (`Content-Security-Policy`): `'self' https://a.example`; `'none'` if left out."
        ),
    )
    referrer_policy: str | None = field(default=None, metadata=_("`Referrer-Policy`; `same-origin` if left out."))
    resource_policy: Literal["same-origin", "same-site", "cross-origin", "off"] | None = field(
        default=None,
        metadata=_("`Cross-Origin-Resource-Policy`: whose pages may embed answers; `same-site` if left out."),
    )
    no_store: bool | None = field(
        default=None,
        metadata=_(
            "Answers to callers with a token are not to be cached where the backend does not say; `true` if left out."
        ),
    )
    add: tuple[tuple[str, str], ...] | None = field(
        default=None,
        metadata=_('Further ones: `{ Permissions-Policy = "camera=()" }`.', table=True),
    )
    override: bool | None = field(
        default=None,
        metadata=_("They replace what a backend says; `false` if left out: the backend's own stand."),
    )


OFF: Final = "off"
"""Instead of a header's value: it is not sent."""

CORS: Final = Cors(
    origins=(),
    credentials=False,
    methods=(),
    headers=("Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match"),
    expose=("ETag", "Location", "RateLimit", "RateLimit-Policy", "Retry-After", "X-Gateway-Error", "X-Request-Id"),
    max_age_s=600.0,
    private_network=False,
)
HEADERS: Final = Headers(
    hsts="max-age=31536000",
    nosniff=True,
    frame_ancestors="'none'",
    referrer_policy="same-origin",
    resource_policy="same-site",
    no_store=True,
    add=(),
    override=False,
)

S = TypeVar("S", Cors, Headers)


def completed(section: S, *bases: S) -> S:
    """
    Fill in what *section* leaves out: from the first of *bases* that says it.
    """
    for base in bases:
        missing: dict[str, Any] = {
            each.name: getattr(base, each.name) for each in fields(section) if getattr(section, each.name) is None
        }
        section = replace(section, **missing)
    return section

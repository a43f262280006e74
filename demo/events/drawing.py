"""
Figures as HTML. Everything that came from outside is escaped on its way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

__all__ = ["drawn", "whole"]

_WHOLE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sessions</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/page.css">
<script src="/page.js" defer></script>
<header><h1>Sessions</h1><p>what the gateway told this Event Service</p></header>
<main id="middle">{middle}</main>
"""


def whole(middle: str) -> str:
    """
    Make the page around its middle.
    """
    return _WHOLE.format(middle=middle)


def drawn(found: dict[str, Any]) -> str:
    """
    Make the page's middle of ``figures``.
    """
    now = found["at"]
    return f"""
<section class="numbers">
{_number("live", found["live"], "live now")}
{_number("today", found["today"]["sessions"], "sessions today (UTC)")}
{_number("users", found["today"]["users"], "players today")}
{_number("day", _share(found["returned"]["1"]), _of(found["returned"]["1"], "came back after 1 day"))}
{_number("week", _share(found["returned"]["7"]), _of(found["returned"]["7"], "came back after 7 days"))}
</section>
<section class="charts">
<article id="types"><h2>By client type</h2>{_bars(_kinds(found["by_client_type"]))}</article>
<article id="durations"><h2>How long they last</h2>{_bars((row["name"], row["sessions"], "") for row in found["durations"])}</article>
<article id="causes"><h2>Why they end</h2>{_bars((row["name"] or "unknown", row["sessions"], "") for row in found["by_cause"])}</article>
</section>
<section id="latest"><h2>Latest</h2>{_latest(found["latest"], now)}</section>
<footer>{found["events"]["taken"]} events since this service began, and {found["events"]["again"]} that had come before
and changed nothing. Types, durations and ends are those of the last seven days.</footer>
"""


def _number(id_: str, value: Any, text: str) -> str:
    return f'<div id="{id_}"><b>{escape(str(value))}</b><span>{escape(text)}</span></div>'


def _share(row: dict[str, Any]) -> str:
    return "–" if row["share"] is None else f"{100 * row['share']:.0f} %"


def _of(row: dict[str, Any], text: str) -> str:
    if not row["users"]:
        return f"{text}: nobody could yet"
    return f"{text}: {row['returned']} of {row['users']}"


def _kinds(rows: Sequence[dict[str, Any]]) -> Iterable[tuple[str, int, str]]:
    return ((row["name"], row["sessions"], f"{row['live']} live" if row["live"] else "") for row in rows)


def _bars(rows: Iterable[tuple[str, int, str]]) -> str:
    rows = list(rows)
    if not rows:
        return "<p>none yet</p>"
    most = max(number for _, number, _ in rows) or 1
    return (
        "<table>"
        + "".join(
            f'<tr><th scope="row">{escape(name)}</th><td class="bar"><svg aria-hidden="true"><rect width="{100 * number / most:.1f}%" height="100%" rx="3"/></svg></td>'
            f"<td>{number}{f' <small>{escape(more)}</small>' if more else ''}</td></tr>"
            for name, number, more in rows
        )
        + "</table>"
    )


def _latest(rows: Sequence[dict[str, Any]], now: float) -> str:
    if not rows:
        return "<p>none yet: open the game and log in</p>"
    return "<ul>" + "".join(_line(row, now) for row in rows) + "</ul>"


def _line(row: dict[str, Any], now: float) -> str:
    of = ", ".join(filter(None, (row["client_type"], row["browser"], row["os"], row["app_version"])))
    if row["ended_at"] is None:
        state, how = "live", f"for {_span(now - row['started_at'])}"
    else:
        near = f" (± {row['accuracy_s']:.0f} s)" if row["accuracy_s"] else ""
        state, how = "over", f"{row['cause'] or 'ended'} after {_span(row['duration_s'])}{near}"
    again = f", resumed {row['resumes']}×" if row["resumes"] else ""
    began = _span(max(0.0, now - row["started_at"]))
    return (
        f'<li class="{state}"><b>{escape(row["user"] or "anonymous")}</b><span>{escape(of)}</span>'
        f"<span>{escape(how + again)}</span><small>began {began} ago</small></li>"
    )


def _span(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}" if seconds >= 10 * size else f"{seconds / size:.1f} {unit}"
    return f"{max(0.0, seconds):.0f} s"

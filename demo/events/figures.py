"""
What sessions say about the players: how many there are, of what kind, how long they stay, who comes back.
"""

from __future__ import annotations

from typing import Any

from demo.events.store import SessionTable

__all__ = ["DURATIONS", "figures"]

DAY_S = 86400
WEEK_S = 7 * DAY_S
DURATIONS = (
    ("under 10 s", 0, 10),
    ("to 1 min", 10, 60),
    ("to 5 min", 60, 300),
    ("to 15 min", 300, 900),
    ("to 1 h", 900, 3600),
    ("longer", 3600, float("inf")),
)
"""Name, from and to, in seconds."""

LIVE_S = 30 * DAY_S
"""A session without an end that is older is one whose end was lost."""


def figures(table: SessionTable, now: float) -> dict[str, Any]:
    """
    Count everything; days are UTC's, and what is counted of ends and kinds is that of the last seven.

    Args:
        now: Epoch seconds.
    """
    (live,) = table.rows("SELECT count(*) AS n FROM session WHERE ended_at IS NULL AND started_at > ?", now - LIVE_S)
    (today,) = table.rows(
        "SELECT count(*) AS sessions, count(DISTINCT nullif(user, '')) AS users FROM session WHERE started_at >= ?",
        now - now % DAY_S,
    )
    kinds = table.rows(
        "SELECT client_type AS name, count(*) AS sessions, sum(ended_at IS NULL) AS live FROM session"
        " WHERE started_at > ? GROUP BY client_type ORDER BY sessions DESC, name",
        now - WEEK_S,
    )
    causes = table.rows(
        "SELECT cause AS name, count(*) AS sessions FROM session WHERE ended_at > ? GROUP BY cause ORDER BY sessions DESC, name",
        now - WEEK_S,
    )
    latest = table.rows(
        "SELECT user, client_type, os, browser, app_version, started_at, ended_at, duration_s, accuracy_s, cause, resumes"
        " FROM session ORDER BY started_at DESC LIMIT 25"
    )
    return {
        "at": now,
        "live": live["n"],
        "today": today,
        "by_client_type": kinds,
        "durations": _durations(table, now),
        "by_cause": causes,
        "returned": {str(days): _returned(table, days, now) for days in (1, 7)},
        "latest": latest,
        "events": {"taken": table.taken, "again": table.again},
    }


def _durations(table: SessionTable, now: float) -> list[dict[str, Any]]:
    bounds = [most for _, _, most in DURATIONS[:-1]]
    cases = " ".join(f"WHEN duration_s < {most} THEN {number}" for number, most in enumerate(bounds))
    found = table.rows(
        f"SELECT CASE {cases} ELSE {len(bounds)} END AS number, count(*) AS sessions FROM session"
        " WHERE ended_at > ? GROUP BY number",
        now - WEEK_S,
    )
    counts = {row["number"]: row["sessions"] for row in found}
    return [{"name": name, "sessions": counts.get(number, 0)} for number, (name, _, _) in enumerate(DURATIONS)]


def _returned(table: SessionTable, days: int, now: float) -> dict[str, Any]:
    """
    Of the users whose first session was so many days ago or more: how many came on just that day after it.
    """
    (row,) = table.rows(
        """
        WITH first AS (
            SELECT user, CAST(min(started_at) / 86400 AS INTEGER) AS day FROM session WHERE user != '' GROUP BY user
        )
        SELECT count(*) AS users, coalesce(sum(EXISTS (
            SELECT 1 FROM session WHERE session.user = first.user
            AND started_at >= (first.day + ?1) * 86400 AND started_at < (first.day + ?1 + 1) * 86400
        )), 0) AS returned FROM first WHERE first.day + ?1 <= ?2
        """,
        days,
        int(now // DAY_S),
    )
    return {**row, "share": row["returned"] / row["users"] if row["users"] else None}

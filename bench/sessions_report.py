"""
What was measured of events of sessions, as it stands in ``bench/RESULTS.md``.
"""

from __future__ import annotations

import time

from bench.report import Figure, figures_table
from bench.sessions import Played
from bench.sessions_killed import Killed

__all__ = ["events_figures", "events_section"]


def events_figures(played: Played, killed: Killed) -> list[Figure]:
    """
    Every session counts once, whatever dies.
    """
    told, made = played.resumes
    return [
        Figure(
            f"Beginnings and ends missing or told twice, of {played.sessions} sessions, the Event Service away for {played.away_s:g} s",
            0,
            played.missing + played.strange,
            "",
        ),
        Figure("Error of a duration, the largest", 1, played.worst_s, "s"),
        Figure("Sessions whose events came out of order", 0, played.disordered + killed.disordered, ""),
        Figure("Resumptions missing or told twice", 0, abs(told - made), ""),
        Figure(
            f"Sessions not ended exactly once, of {killed.sessions}, instances killed {killed.trials} times",
            0,
            killed.unended + killed.twice + killed.unbegun,
            "",
        ),
        Figure("How far the end of a killed session lies off what `accuracy_s` allows", 1, killed.early_s, "s"),
    ]


def events_section(played: Played, killed: Killed) -> str:
    """
    Return what was played and what was told of it.
    """
    told = played.told
    return "\n".join(
        [
            "## Events of sessions",
            "",
            (
                f"{time.strftime('%Y-%m-%d')}. Two instances on one Redis, and an Event Service (gRPC, a process of its own) that writes "
                f"down all that it is told. First {played.sessions} scripted sessions over two minutes: pages, iOS, Android, bots, second tabs, "
                f"{played.resumes[1]} returns to either instance; two thirds are closed, the others lost. Then {killed.trials} times one instance is "
                "killed (`kill -9`), or both and one is started again, while a dozen people come and go."
            ),
            "",
            figures_table(events_figures(played, killed)),
            "",
            "| | begun | resumed | ended | told again, same id | all told after its return |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
            (
                f"| Event Service away for {played.away_s:g} s | {told['SESSION_STARTED']} | {told['SESSION_RESUMED']} | {told['SESSION_ENDED']} "
                f"| {played.repeated} | {played.recovered_s:.1f} s |"
            ),
            (
                f"| instances killed {killed.trials} times | {killed.sessions} | | {killed.sessions - killed.unended}, "
                f"{killed.lost} of them `instance_lost` | {killed.repeated} | |"
            ),
        ]
    )

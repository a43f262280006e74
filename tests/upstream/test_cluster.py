"""
What a cluster decides, for targets of whatever kind.
"""

from collections import Counter
from random import Random
from typing import Any

import pytest
from tests.upstream.gate import upstream

from gateway.core.problems import Problem
from gateway.upstream.cluster import Cluster, Member


def cluster(*names: str, **changes: Any) -> tuple[Cluster[str], list[tuple[str, dict[str, Any]]]]:
    """A cluster of words, and what it said."""
    said: list[tuple[str, dict[str, Any]]] = []
    section = upstream(*names, **changes)
    made = Cluster(
        section,
        [(name, name.upper()) for name in names],
        Random(3).random,
        lambda event, fields: said.append((event, fields)),
    )
    return made, said


def fail(subject: Cluster[str], member: Member[str], now: float, times: int = 1) -> None:
    for _ in range(times):
        subject.began(member)
        subject.ended(member, now, ok=False)


def picked(subject: Cluster[str], now: float, times: int = 100) -> set[str]:
    return {subject.pick(now).name for _ in range(times)}


def test_least_requests() -> None:
    """
    Requests that stay at their target spread evenly.
    """
    subject, _ = cluster("a", "b", "c")
    for _ in range(90):
        subject.began(subject.pick(0.0))
    loads = [member.in_flight for member in subject.members]
    assert max(loads) - min(loads) <= 3


def test_round_robin() -> None:
    """
    In turn, whatever is under way; a target that is out is left out of the round.
    """
    subject, _ = cluster("a", "b", "c", balance="round_robin")
    assert Counter(subject.pick(0.0).name for _ in range(30)) == {"a": 10, "b": 10, "c": 10}
    subject.eject("b", 0.0, 10.0)
    assert Counter(subject.pick(1.0).name for _ in range(30)) == {"a": 15, "c": 15}


def test_outliers() -> None:
    """
    Failures in a row eject, a success between them does not let it come to that, and time readmits.
    """
    subject, said = cluster("a", "b", outlier__consecutive_failures=3, outlier__base_ejection_s=10.0)
    a, _ = subject.members
    fail(subject, a, 0.0, 2)
    subject.began(a)
    subject.ended(a, 0.0, ok=True)
    fail(subject, a, 0.0, 2)
    assert picked(subject, 0.0) == {"a", "b"}
    fail(subject, a, 0.0)
    assert picked(subject, 9.9) == {"b"}
    assert said == [("upstream.ejected", {"upstream": "backend", "target": "a", "seconds": 10.0})]
    assert picked(subject, 10.0) == {"a", "b"}


def test_what_says_nothing_does_not_count() -> None:
    """
    Attempts that were abandoned neither eject nor acquit.
    """
    subject, said = cluster("a", "b", outlier__consecutive_failures=2)
    a, _ = subject.members
    fail(subject, a, 0.0)
    for _ in range(5):
        subject.began(a)
        subject.ended(a, 0.0, ok=None)
    assert said == []
    fail(subject, a, 0.0)
    assert len(said) == 1


def test_all_out_is_none_out() -> None:
    """
    When checks fail for every target, all are asked: perhaps it is the check that is wrong.
    """
    subject, _ = cluster("a", "b")
    for member in subject.members:
        subject.checked(member, 0.0, healthy=False)
    assert picked(subject, 0.0) == {"a", "b"}
    subject.checked(subject.members[1], 1.0, healthy=True)
    assert picked(subject, 1.0) == {"b"}


def test_unhealthy_targets_count_as_out() -> None:
    """
    With one of two unhealthy the other is not ejected.
    """
    subject, said = cluster("a", "b", outlier__consecutive_failures=1)
    a, b = subject.members
    subject.checked(a, 0.0, healthy=False)
    fail(subject, b, 0.0, 5)
    assert picked(subject, 0.0) == {"b"}
    assert [event for event, _ in said] == ["upstream.unhealthy"]


def test_a_passing_check_readmits() -> None:
    """
    A good check uses an ejected target again before its time.
    """
    subject, said = cluster("a", "b", outlier__consecutive_failures=1)
    a, _ = subject.members
    fail(subject, a, 0.0)
    subject.checked(a, 5.0, healthy=True)
    assert picked(subject, 5.0) == {"a", "b"}
    assert [event for event, _ in said] == ["upstream.ejected", "upstream.readmitted"]


def test_what_somebody_put_aside_stays_aside() -> None:
    """
    Neither checks nor answers use it again; its time or somebody's word does.
    """
    subject, _ = cluster("a", "b")
    a, _ = subject.members
    assert subject.eject("a", 0.0, 100.0)
    assert not subject.eject("z", 0.0, 100.0)
    subject.checked(a, 1.0, healthy=True)
    subject.began(a)
    subject.ended(a, 1.0, ok=True)
    assert picked(subject, 99.0) == {"b"}
    assert picked(subject, 100.0) == {"a", "b"}
    subject.eject("a", 100.0, 100.0)
    assert subject.restore("a", 101.0)
    assert not subject.restore("z", 101.0)
    assert picked(subject, 101.0) == {"a", "b"}


def test_tried_targets_come_last() -> None:
    """
    Another attempt goes elsewhere while there is an elsewhere.
    """
    subject, _ = cluster("a", "b", "c")
    a, b, c = subject.members
    assert {subject.pick(0.0, (a, b)).name for _ in range(50)} == {"c"}
    assert {subject.pick(0.0, (a, b, c)).name for _ in range(50)} == {"a", "b", "c"}
    subject.eject("c", 0.0, 10.0)
    assert {subject.pick(0.0, (a,)).name for _ in range(50)} == {"b"}
    assert {subject.pick(0.0, (a, b)).name for _ in range(50)} == {"a", "b"}


def test_nobody_to_ask() -> None:
    """
    Without targets there is a problem to answer with.
    """
    subject, _ = cluster()
    with pytest.raises(Problem) as caught:
        subject.pick(0.0)
    assert caught.value.kind.code == "upstream_no_target"


def test_bounds_and_breaker() -> None:
    """
    What is not admitted says when to come again; the numbers come back to nothing.
    """
    subject, said = cluster(
        "a", breaker__max_requests=2, breaker__min_requests=2, breaker__open_s=10.0, breaker__probes=1
    )
    admissions = [subject.admit(0.0), subject.admit(0.0)]
    with pytest.raises(Problem) as caught:
        subject.admit(0.0)
    assert (caught.value.kind.code, caught.value.headers) == ("upstream_overload", ((b"Retry-After", b"1"),))
    for admission in admissions:
        subject.finished(admission, 0.0, ok=False)
    assert subject.active == 0
    with pytest.raises(Problem) as caught:
        subject.admit(0.5)
    assert caught.value.kind.code == "upstream_open"
    assert 8 < int(caught.value.headers[0][1]) <= 10
    probe = subject.admit(11.0)
    probe = subject.answering(probe, 11.0)
    subject.admit(11.0)
    subject.finished(probe, 12.0, ok=True)
    assert [fields["state"] for _, fields in said] == ["open", "half_open", "closed"]
    assert subject.active == 1


def test_describe() -> None:
    """
    Operators see every target and the breaker.
    """
    subject, _ = cluster("a", "b")
    a, b = subject.members
    subject.began(a)
    fail(subject, b, 0.0)
    subject.eject("b", 0.0, 30.0)
    assert subject.describe(10.0) == {
        "upstream": "backend",
        "breaker": "closed",
        "active": 0,
        "retrying": 0,
        "targets": [
            {"target": "a", "healthy": True, "ejected_s": 0.0, "in_flight": 1, "attempts": 1, "failures": 0},
            {"target": "b", "healthy": True, "ejected_s": 20.0, "in_flight": 0, "attempts": 1, "failures": 1},
        ],
    }

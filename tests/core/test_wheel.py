"""
Many deadlines on one timer.
"""

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.wheel import Wheel


def test_due_items_come_once() -> None:
    """
    An item comes out once, after its deadline, and a moved one only at its new deadline.
    """
    wheel: Wheel[str] = Wheel(0.5)
    wheel.set("a", 10.0)
    wheel.set("b", 11.0)
    wheel.set("a", 12.0)
    assert wheel.turn(11.6) == ["b"]
    assert wheel.turn(12.6) == ["a"]
    assert wheel.turn(100.0) == []
    assert len(wheel) == 0


def test_a_deadline_in_the_past_is_due_next() -> None:
    """
    A deadline that has passed already falls due at the next turn, not never.
    """
    wheel: Wheel[str] = Wheel(1.0)
    wheel.turn(50.0)
    wheel.set("late", 3.0)
    assert wheel.turn(51.0) == ["late"]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("set"), st.integers(0, 5), st.floats(0, 60)),
            st.tuples(st.just("drop"), st.integers(0, 5), st.just(0.0)),
            st.tuples(st.just("turn"), st.just(0), st.floats(0, 5)),
        )
    )
)
def test_nothing_early_and_at_most_one_slot_late(steps: list[tuple[str, int, float]]) -> None:
    """
    No item comes before its deadline, and none is later than a slot.
    """
    wheel: Wheel[int] = Wheel(0.25)
    now = 0.0
    deadlines: dict[int, float] = {}
    wheel.turn(now)
    for kind, item, value in steps:
        if kind == "set":
            wheel.set(item, value)
            deadlines[item] = max(value, now)
        elif kind == "drop":
            wheel.drop(item)
            deadlines.pop(item, None)
        else:
            now += value
            for due in wheel.turn(now):
                assert deadlines.pop(due) <= now
            assert all(deadline > now - 0.5 for deadline in deadlines.values())
    assert len(wheel) == len(deadlines)

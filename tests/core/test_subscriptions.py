"""
The index of who hears what.
"""

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.subscriptions import Still, Subscriptions


def test_last_leaver_releases_channel() -> None:
    """
    The broker hears of a channel's end only when its last listener has gone.
    """
    index: Subscriptions[str, str] = Subscriptions()
    assert index.add("room:1", "json", "alice")
    assert not index.add("room:1", "protobuf", "bob")
    assert index.remove("room:1", "json", "alice") is Still.HEARD
    assert index.remove("room:1", "protobuf", "bob") is Still.SILENT
    assert index.audience("room:1") is None


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("ab"), st.sampled_from("jp"), st.integers(0, 3))))
def test_index_agrees_with_a_set(steps: list[tuple[bool, str, str, int]]) -> None:
    """
    Whatever comes and goes in whatever order, the audience is who came and has not gone.
    """
    index: Subscriptions[str, tuple[str, int]] = Subscriptions()
    there: set[tuple[str, str, int]] = set()
    for comes, channel, form, number in steps:
        listener = (form, number)
        heard = {(form, number) for other, form, number in there if other == channel}
        if comes:
            assert index.add(channel, form, listener) is (not heard)
            there.add((channel, form, number))
        else:
            there.discard((channel, form, number))
            still = index.remove(channel, form, listener)
            assert (still is Still.HEARD) is any(other == channel for other, _, _ in there)
        for name in "ab":
            audience = index.audience(name)
            expected = {(form, number) for other, form, number in there if other == name}
            assert set(audience or ()) == expected
            assert (audience.size if audience else 0) == len(expected)
            assert all(audience.forms.values()) if audience else True

"""
Recovery and the merge of history with live publications.
"""

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.publications import Position, Publication
from gateway.core.streams import is_recovered, merge


def stream(*offsets: int) -> list[Publication]:
    return [Publication(b"%d" % offset, offset) for offset in offsets]


def test_recovered_means_everything() -> None:
    """
    Recovery is whole or it is not: same epoch, nothing missing at either end or between.
    """
    top = Position(5, "e")
    assert is_recovered(Position(2, "e"), top, stream(3, 4, 5))
    assert is_recovered(Position(5, "e"), top, [])
    assert not is_recovered(Position(2, "other"), top, stream(3, 4, 5))
    assert not is_recovered(Position(2, "e"), top, stream(4, 5))
    assert not is_recovered(Position(2, "e"), top, stream(3, 5))
    assert not is_recovered(Position(2, "e"), top, stream(3, 4))
    assert not is_recovered(Position(2, "e"), top, [])
    assert not is_recovered(Position(9, "e"), top, [])


@given(
    start=st.integers(0, 5),
    total=st.integers(0, 20),
    read_at=st.integers(0, 20),
    from_live=st.integers(0, 20),
    lost=st.sets(st.integers(1, 20), max_size=2),
)
def test_merge_is_whole_or_nothing(start: int, total: int, read_at: int, from_live: int, lost: set[int]) -> None:
    """
    History read at any moment joined with live publications from any earlier one is gapless, or None.
    """
    top = Position(min(max(read_at, start), total), "e")
    history = stream(*range(start + 1, top.offset + 1))
    begin = min(from_live, top.offset)
    live = [publication for publication in stream(*range(begin + 1, total + 1)) if publication.offset not in lost]
    found = merge(history, top, live)
    if found is None:
        assert any(top.offset < offset <= total for offset in lost)
        return
    merged, position = found
    offsets = [publication.offset for publication in merged]
    assert offsets == list(range(start + 1, position.offset + 1)) or (
        start >= top.offset and offsets == list(range(top.offset + 1, position.offset + 1))
    )
    if not lost:
        assert position.offset == max(total, top.offset)

"""
Frames that wait for a slow client.
"""

from gateway.core.outbox import Outbox


def test_frames_leave_in_order_in_pieces_of_about_the_size_asked() -> None:
    """
    What was put first is taken first; at least one frame is taken however large it is.
    """
    outbox = Outbox(10_000)
    for number in range(5):
        assert outbox.put(b"%d" % number * 10)
    assert outbox.take(25) == b"0" * 10 + b"1" * 10
    assert outbox.take(1) == b"2" * 10
    assert outbox.take(1000) == b"3" * 10 + b"4" * 10
    assert not outbox
    assert outbox.bytes == 0
    assert outbox.take(10) == b""


def test_a_frame_beyond_the_limit_is_refused_and_changes_nothing() -> None:
    """
    The limit counts each frame's bytes and a small cost beside them.
    """
    outbox = Outbox(400)
    assert outbox.put(b"x" * 100)
    before = outbox.bytes
    assert not outbox.put(b"y" * 300)
    assert outbox.bytes == before
    assert outbox.take(1000) == b"x" * 100


def test_only_the_newest_of_a_channel_waits_behind_what_came_before_it() -> None:
    """
    A newer publication takes the place of the older one, at the end, and other frames stay.
    """
    outbox = Outbox(10_000)
    outbox.put_latest("a", b"a1")
    outbox.put(b"reply")
    outbox.put_latest("b", b"b1")
    outbox.put_latest("a", b"a2")
    assert outbox.take(1000) == b"replyb1a2"
    assert outbox.bytes == 0


def test_droppable_frames_leave_half_of_the_room_and_are_counted() -> None:
    """
    Beyond half the limit publications of a dropping channel are counted, while others still fit.
    """
    outbox = Outbox(1000)
    for _ in range(10):
        outbox.put_or_drop("typing", b"x" * 100)
    assert outbox.dropped == {"typing": 7}
    assert outbox.put(b"y" * 100)

"""
What a process leaves in its spool, and what the next one makes of it.
"""

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_twisted
from tests.spool.spools import ALL, HangingFile, Process, pause
from tests.web.harness import eventually

from gateway.ports.sessions import Event, SessionRecord
from gateway.spool import keeping
from gateway.spool.file import NAME


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file of this process grows beyond *size* bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def restarted(folder: Path, at: float, window_s: float = 30.0) -> Process:
    return await Process(folder, at=at, window_s=window_s).start()


@pytest_twisted.ensureDeferred
async def test_what_was_open_is_lost_and_ends_once(tmp_path: Path) -> None:
    """
    Sessions that a process left open are suspended as ``instance_lost``, at the time it was last known alive.
    """
    first = await Process(tmp_path).start()
    left, closed, away = [await first.opened(number, user) for number, user in enumerate(("alice", "bob", "carol"), 1)]
    await first.stores.sessions.close(closed.id, closed.client, event=Event(f"{closed.id}-end", b"ended"))
    await first.stores.sessions.suspend(away.id, away.client, 30.0, cause="lost", ago_s=2.0)
    first.clock.advance(7.0)
    await first.spool.settled()
    await first.stop()

    second = await restarted(tmp_path, at=100.0)
    assert second.heard("spool.taken_back") == [{"sessions": 2, "events": 4}]
    assert sorted(await second.told()) == sorted(
        [f"{each.id}-start" for each in (left, closed, away)] + [f"{closed.id}-end"]
    )
    lost = await second.stores.sessions.get(left.id)
    assert lost is not None
    assert lost.cause == "instance_lost"
    assert lost.facts == {"n": 1}
    assert 1.8e9 <= lost.seen_at <= 1.8e9 + 7.0
    suspended = await second.stores.sessions.get(away.id)
    assert suspended is not None
    assert (suspended.cause, suspended.seen_at) == ("lost", 1.8e9 - 2.0)
    assert [record.id for record in await second.stores.sessions.lapsing(ALL)] == [away.id]
    second.clock.advance(5.0)
    due = await second.stores.sessions.lapsing(ALL)
    assert {record.id for record in due} == {left.id, away.id}
    ended = await second.stores.sessions.lapse([(record, Event(f"{record.id}-end", b"")) for record in due])
    assert len(ended) == 2
    await second.stop()

    third = await restarted(tmp_path, at=200.0)
    assert third.heard("spool.taken_back") == [{"sessions": 0, "events": 6}]
    told = await third.told()
    assert len(told) == len(set(told)) == 6
    assert await third.stores.sessions.lapsing(ALL) == []
    await third.stop()


@pytest_twisted.ensureDeferred
async def test_a_device_goes_on_after_a_restart(tmp_path: Path) -> None:
    """
    Who comes back within the window goes on with the session that the earlier process had.
    """
    first = await Process(tmp_path).start()
    mine = await first.opened(1)
    await first.stop()
    second = await restarted(tmp_path, at=3.0)
    again = await second.opened(2)
    assert (again.id, again.client, again.cause) == (mine.id, "c2", "")
    assert again.started_at == mine.started_at
    assert await second.told() == [f"{mine.id}-start", "c2-resumed"]
    await second.stop()


@pytest_twisted.ensureDeferred
async def test_what_was_told_is_told_no_more(tmp_path: Path) -> None:
    """
    Events that are done are gone from the file; the others keep their order.
    """
    first = await Process(tmp_path, window_s=0.0).start()
    mine = [await first.opened(number) for number in range(1, 6)]
    taken = await first.stores.events.take("x", ALL, 100)
    await first.stores.events.done([event.ref for event in taken][:3])
    await first.stop()
    second = await restarted(tmp_path, at=1.0)
    assert await second.told() == [f"{record.id}-start" for record in mine[3:]]
    await second.stop()


@pytest_twisted.ensureDeferred
async def test_nothing_is_given_away_that_a_crash_would_forget(tmp_path: Path) -> None:
    """
    An event is taken only when it stands in the file; on a disk that hangs nobody waits for long.
    """
    file = HangingFile(tmp_path)
    process = await Process(tmp_path, file=file).start()
    process.stores.events.append(  # type: ignore[attr-defined]  # as a store does it
        SessionRecord("0" * 32, "", "", "", "", 0.0, 0.0, {}), Event("e", b""), 0.0
    )
    assert process.spool.written == 0
    assert await process.told() == ["e"]
    assert process.heard("spool.late") == [{"waiting": 1}]
    file.goes_on.set()
    await eventually(lambda: process.heard("spool.in_time"))
    assert process.spool.written == 1
    await process.stop()


@pytest_twisted.ensureDeferred
async def test_what_waits_for_a_disk_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Beyond the bound changes are dropped and counted; when the disk goes on, everything is written anew.
    """
    monkeypatch.setattr(keeping, "MOST_WAITING", 3)
    file = HangingFile(tmp_path)
    process = await Process(tmp_path, file=file).start()
    mine = []
    for number in range(1, 8):
        mine.append(await process.opened(number))
        await pause(0.01)
    assert [fields["why"] for fields in process.heard("spool.failed")] == ["slow"]
    assert process.spool.missed > 3
    assert process.spool.waiting <= 4
    file.goes_on.set()
    await eventually(lambda: process.spool.keeping and not process.spool.waiting)
    await process.stop()
    after = await restarted(tmp_path, at=1.0)
    assert await after.told() == [f"{record.id}-start" for record in mine]
    await after.stop()


@pytest_twisted.ensureDeferred
async def test_what_waits_to_be_told_is_bounded(tmp_path: Path) -> None:
    """
    In entries and in bytes: what does not fit is counted and not in the file, and there is room again for what is told.
    """
    process = Process(tmp_path, most_bytes=3000)
    await process.start()
    for number in range(1, 10):
        await process.opened(number)
    backlog = await process.stores.events.backlog()
    assert (backlog.waiting, backlog.lost) == (7, 2)
    taken = await process.stores.events.take("x", ALL, 100)
    await process.stores.events.done([taken[3].ref, taken[0].ref])
    await process.opened(10)
    await process.opened(11)
    assert await process.stores.events.backlog() == backlog
    await process.opened(12)
    assert (await process.stores.events.backlog()).lost == 3
    await process.stop()
    after = await restarted(tmp_path, at=1.0)
    assert len(await after.told()) == 7
    await after.stop()


@pytest_twisted.ensureDeferred
async def test_a_file_is_one_process_s(tmp_path: Path) -> None:
    """
    A second process is told that the file is locked and goes on without; when the first is gone it has the file.
    """
    first = await Process(tmp_path).start()
    theirs = await first.opened(1, "alice")
    second = await restarted(tmp_path, at=1.0)
    assert [fields["why"] for fields in second.heard("spool.failed")] == ["locked"]
    ours = await second.opened(2, "bob")
    await first.stop()
    await eventually(lambda: second.spool.keeping)
    assert second.heard("spool.mended")
    assert sorted(await second.told()) == sorted([f"{theirs.id}-start", f"{ours.id}-start"])
    lost = await second.stores.sessions.get(theirs.id)
    assert lost is not None
    assert lost.cause == "instance_lost"
    await second.stop()


@pytest.mark.parametrize("where", [0, 4096 + 100])
@pytest_twisted.ensureDeferred
async def test_a_corrupt_file_is_put_aside(tmp_path: Path, where: int) -> None:
    """
    A file that cannot be read is kept under another name, told of, and replaced; clients notice nothing.
    """
    first = await Process(tmp_path).start()
    for number in range(1, 30):
        await first.opened(number)
    await first.stop()
    path = tmp_path / NAME
    with path.open("r+b") as file:
        file.seek(where)
        file.write(b"\xff" * 4000)
    broken = path.read_bytes()
    second = await restarted(tmp_path, at=1.0)
    assert second.heard("spool.corrupt") == [{"moved": f"{path}.corrupt"}]
    assert path.with_name(f"{NAME}.corrupt").read_bytes() == broken
    mine = await second.opened(50)
    await second.stop()
    third = await restarted(tmp_path, at=2.0)
    assert await third.told() == [f"{mine.id}-start"]
    await third.stop()


@pytest_twisted.ensureDeferred
async def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    """
    A database of something else under our name is not touched; the gateway goes on without.
    """
    other = sqlite3.connect(tmp_path / NAME)
    other.execute("CREATE TABLE precious (id INTEGER)")
    other.close()
    process = await Process(tmp_path).start()
    assert [fields["why"] for fields in process.heard("spool.failed")] == ["foreign"]
    await process.opened(1)
    assert len(await process.told()) == 1
    assert process.spool.missed
    await process.stop()
    with sqlite3.connect(tmp_path / NAME) as other:
        assert other.execute("SELECT name FROM sqlite_schema").fetchall() == [("precious",)]
    other.close()


@pytest_twisted.ensureDeferred
async def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """
    Without the folder above its own a spool says so, once, and is tried on until it is there.
    """
    process = await Process(tmp_path / "none" / "spool").start()
    mine = await process.opened(1)
    assert [fields["why"] for fields in process.heard("spool.failed")] == ["unusable"]
    (tmp_path / "none").mkdir()
    await eventually(lambda: process.spool.keeping and not process.spool.waiting)
    assert (tmp_path / "none" / "spool" / NAME).stat().st_mode & 0o077 == 0
    await process.stop()
    after = await restarted(tmp_path / "none" / "spool", at=1.0)
    assert await after.told() == [f"{mine.id}-start"]
    await after.stop()


@pytest_twisted.ensureDeferred
async def test_a_full_disk_is_told_and_stops_nobody(tmp_path: Path) -> None:
    """
    While the disk is full sessions begin and end and are told; when it is not any more, the file has everything.
    """
    process = await Process(tmp_path).start()
    first = await process.opened(1)
    with full_disk(100_000):
        during = []
        number = 1
        while process.spool.keeping and number < 2000:
            number += 1
            during.append(await process.opened(number))
        number += 1
        during.append(await process.opened(number))
        assert [fields["why"] for fields in process.heard("spool.failed")] == ["full"]
        assert len(await process.told()) == number
    await eventually(lambda: process.spool.keeping and not process.spool.waiting)
    assert len(process.heard("spool.mended")) == 1
    await process.stop()
    after = await restarted(tmp_path, at=1.0)
    assert await after.told() == [f"{record.id}-start" for record in [first, *during]]
    await after.stop()


@pytest_twisted.ensureDeferred
async def test_a_file_that_is_taken_away_is_made_anew(tmp_path: Path) -> None:
    """
    With the next beat a file that somebody removed is there again, with everything.
    """
    process = await Process(tmp_path).start()
    mine = await process.opened(1)
    for name in (NAME, f"{NAME}-wal"):
        (tmp_path / name).unlink()
    await eventually(lambda: process.heard("spool.mended"))
    assert [fields["why"] for fields in process.heard("spool.failed")] == ["gone"]
    await eventually(lambda: not process.spool.waiting)
    await process.stop()
    after = await restarted(tmp_path, at=1.0)
    assert await after.told() == [f"{mine.id}-start"]
    await after.stop()

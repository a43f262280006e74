"""
What every store of results promises.
"""

import pytest
import pytest_twisted
from tests.contract.conftest import Results

from gateway.ports.realtime import StillRunning


@pytest_twisted.ensureDeferred
async def test_one_claim_one_result(results: Results) -> None:
    """
    The first claims, others wait while it runs, and later ones get its result until it is forgotten.
    """
    one, two = results.one, results.two
    assert await one.begin("k", "m1", 60) is None
    for store in (one, two):
        with pytest.raises(StillRunning):
            await store.begin("k", "m2", 60)
    assert await one.finish("k", "m1", b"\x00done", 0.5)
    assert await two.begin("k", "m2", 60) == b"\x00done"
    assert await one.begin("other", "m3", 60) is None
    await results.pass_time(0.8)
    assert await two.begin("k", "m2", 60) is None


@pytest_twisted.ensureDeferred
async def test_an_empty_result_is_one(results: Results) -> None:
    """
    Nothing is a result, too.
    """
    assert await results.one.begin("k", "m1", 60) is None
    assert await results.one.finish("k", "m1", b"", 60)
    assert await results.two.begin("k", "m2", 60) == b""


@pytest_twisted.ensureDeferred
async def test_a_claim_given_up_is_free(results: Results) -> None:
    """
    Who fails gives the key up, and the next one may try; nobody gives up another's claim, or a result.
    """
    one, two = results.one, results.two
    assert await one.begin("k", "m1", 60) is None
    await two.release("k", "m2")
    with pytest.raises(StillRunning):
        await two.begin("k", "m2", 60)
    await one.release("k", "m1")
    assert await two.begin("k", "m2", 60) is None
    assert await two.finish("k", "m2", b"done", 60)
    await two.release("k", "m2")
    assert await one.begin("k", "m1", 60) == b"done"


@pytest_twisted.ensureDeferred
async def test_a_claim_ends(results: Results) -> None:
    """
    A claim whose owner died is free after its time; if it lives after all, the one who claimed since is not disturbed.
    """
    one, two = results.one, results.two
    assert await one.begin("k", "m1", 0.3) is None
    assert await one.begin("k", "m1", 0.3) is None, "one's own claim is extended"
    await results.pass_time(0.6)
    assert await two.begin("k", "m2", 60) is None
    assert not await one.finish("k", "m1", b"late", 60)
    await one.release("k", "m1")
    assert await two.finish("k", "m2", b"mine", 60)
    assert not await one.finish("k", "m1", b"later", 60)
    assert await one.begin("k", "m3", 60) == b"mine"


@pytest_twisted.ensureDeferred
async def test_late_but_alone(results: Results) -> None:
    """
    A result that comes after its claim has lapsed is kept if nobody has claimed the key since.
    """
    assert await results.one.begin("k", "m1", 0.2) is None
    await results.pass_time(0.5)
    assert await results.one.finish("k", "m1", b"late", 60)
    assert await results.two.begin("k", "m2", 60) == b"late"

"""
What every store of results promises.
"""

import pytest
import pytest_twisted

from gateway.ports.realtime import IdempotencyStore, StoreUnavailable


@pytest_twisted.ensureDeferred
async def test_one_claim_one_result(idempotency: IdempotencyStore) -> None:
    """
    The first claims, others wait while it runs, and later ones get its result until it is forgotten.
    """
    assert await idempotency.begin("k", 2000.0) is None
    with pytest.raises(StoreUnavailable):
        await idempotency.begin("k", 2000.0)
    await idempotency.finish("k", b"done", 2000.0)
    assert await idempotency.begin("k", 2000.0) == b"done"
    await idempotency.finish("old", b"gone", 999.0)
    assert await idempotency.begin("old", 2000.0) is None


@pytest_twisted.ensureDeferred
async def test_a_claim_given_up_is_free(idempotency: IdempotencyStore) -> None:
    """
    Who fails gives the key up, and the next one may try.
    """
    assert await idempotency.begin("k", 2000.0) is None
    await idempotency.release("k")
    assert await idempotency.begin("k", 2000.0) is None

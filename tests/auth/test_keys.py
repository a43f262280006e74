"""
Keys behind a URL: fetched, kept fresh, rotated, missed. The HTTP is real, the time is not.
"""

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from tests.auth.key_server import Issuing, signed
from tests.auth.making import HMAC_ISSUER, NOW, hmac_issuer, jwk, jwks, no_fetch, no_report, token
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import Clock

from gateway.auth.keys import KeyRing
from gateway.auth.sources import freshness
from gateway.config.sections import Auth, Issuer
from gateway.core.problems import Problem


@asynccontextmanager
async def issuing(*, start: bool = True, **more: Any) -> AsyncIterator[Issuing]:
    made = Issuing(**more)
    try:
        yield (await made.started()) if start else made
    finally:
        await made.close()


def all_of(waiting: list[Awaitable[str]]) -> "Deferred[list[str]]":
    return gatherResults([Deferred.fromCoroutine(one) for one in waiting])  # type: ignore[arg-type]  # Coroutines are.


@pytest_twisted.ensureDeferred
async def test_keys_are_fetched_at_start() -> None:
    """
    After the first fetch the ring is ready, and tokens are verified at once.
    """
    async with issuing(start=False) as it:
        assert not it.ring.ready()
        assert it.ring.ages() == [(HMAC_ISSUER, float("inf"))]
        await it.started()
        assert it.judge.ready()
        assert it.ring.ages() == [(HMAC_ISSUER, 0.0)]
        assert not isinstance(it.judge.authenticate(signed(), NOW), Deferred)
        assert it.events == [("keys.fetched", "1 keys")]


@pytest_twisted.ensureDeferred
async def test_requests_before_the_first_keys_wait_for_them() -> None:
    """
    200 callers who come while the first fetch is under way are served by that one fetch.
    """
    async with issuing(start=False) as it:
        it.server.holding = True
        it.ring.start()
        waiting = all_of([it.judged(signed(sub=f"user{number}")) for number in range(200)])
        it.server.release()
        assert await waiting == [f"user{number}" for number in range(200)]
        assert it.server.asked == 1


@pytest_twisted.ensureDeferred
async def test_unknown_kids_share_one_fetch_in_30_s() -> None:
    """
    200 concurrent unknown key ids cost one fetch, and more of them within 30 s cost none and do not wait.
    """
    async with issuing() as it:
        it.server.holding = True
        waiting = all_of([it.judged(signed(f"unknown{number}")) for number in range(200)])
        it.clock.advance(0)
        it.server.release()
        assert set(await waiting) == {"key_unknown"}
        assert it.server.asked == 2
        it.clock.advance(29)
        with pytest.raises(Problem):
            it.judge.authenticate(signed("unknown"), NOW)
        assert it.server.asked == 2
        it.clock.advance(1)
        assert set(await all_of([it.judged(signed("unknown")) for _ in range(5)])) == {"key_unknown"}
        assert it.server.asked == 3


@pytest_twisted.ensureDeferred
async def test_tokens_that_cannot_be_good_cost_no_fetch() -> None:
    """
    An expired token, one for another audience or by another algorithm is refused without asking the issuer.
    """
    async with issuing() as it:
        for spoilt in (signed("new", exp=NOW - 60), signed("new", aud="x"), token({"kid": "new"})):
            with pytest.raises(Problem):
                it.judge.authenticate(spoilt, NOW)
        assert it.server.asked == 1


@pytest_twisted.ensureDeferred
async def test_rotation_refuses_nobody() -> None:
    """
    From the first token of a new key on every good token is accepted; the old key's are, until it is withdrawn.
    """
    async with issuing() as it:
        assert await it.judged(signed("k1")) == "alice"
        it.server.document = jwks(jwk("P-256", "k1"), jwk("rsa", "k2"))
        assert await it.judged(signed("k2", "rsa")) == "alice"
        assert await it.judged(signed("k1")) == "alice"
        assert (it.judge.cached, it.server.asked) == (2, 2)
        it.server.document = jwks(jwk("rsa", "k2"))
        await it.after(480)
        assert it.judge.cached == 0
        assert await it.judged(signed("k2", "rsa")) == "alice"
        assert await it.judged(signed("k1")) == "key_unknown"


@pytest_twisted.ensureDeferred
async def test_rotation_without_key_ids_refuses_nobody() -> None:
    """
    Where neither tokens nor keys have ids, a signature that does not fit brings the new key, once in 30 s.
    """
    async with issuing(start=False) as it:
        it.server.document = jwks(jwk("P-256", None))
        await it.started()
        assert await it.judged(signed(None)) == "alice"
        it.server.document = jwks(jwk("P-256-other", None))
        assert await it.judged(signed(None, "P-256-other")) == "alice"
        assert await it.judged(signed(None)) == "signature"
        assert await it.judged(signed("k9", "P-256-other")) == "alice"
        assert it.server.asked == 2
        it.clock.advance(30)
        assert await it.judged(signed(None)) == "signature"
        assert it.server.asked == 3


@pytest_twisted.ensureDeferred
async def test_key_replaced_under_its_name_ends_what_it_verified() -> None:
    """
    Another key under the same id is another key: remembered tokens of the old one are refused.
    """
    async with issuing() as it:
        assert await it.judged(signed()) == "alice"
        it.server.document = jwks(jwk("P-256-other", "k1"))
        await it.after(480)
        assert await it.judged(signed()) == "signature"
        assert await it.judged(signed(kind="P-256-other")) == "alice"


@pytest_twisted.ensureDeferred
async def test_set_is_fetched_again_at_80_percent_of_its_age() -> None:
    """
    The background fetch comes at 80 % of ``jwks_ttl``, or of a shorter ``max-age``, and changes nothing in between.
    """
    async with issuing() as it:
        assert await it.judged(signed()) == "alice"
        it.clock.advance(479)
        assert it.server.asked == 1
        it.server.headers = {"Cache-Control": "public, max-age=100"}
        await it.after(1)
        assert (it.server.asked, it.judge.cached) == (2, 1)
        it.clock.advance(79)
        assert it.server.asked == 2
        await it.after(1)
        assert it.server.asked == 3


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"max-age=300", 300),
        (b'public, MAX-AGE="300" , x', 300),
        (b"max-age=5", 60),
        (b"max-age=999999999999999999999", 600),
        (b"max-age=-1", 600),
        (b"no-store", 60),
        (b"no-cache, max-age=300", 60),
        (b"", 600),
        (b"s-maxage=5", 600),
    ],
)
def test_cache_control_caps_the_age(value: bytes, seconds: float) -> None:
    """
    ``max-age`` counts from 60 s up to the configured age.
    """
    assert freshness([(b"Cache-Control", value), (b"Age", b"1")], 600) == seconds
    assert freshness([], 600) == 600
    assert freshness([(b"Cache-Control", value)], 30) == 30


@pytest_twisted.ensureDeferred
async def test_outage_is_bridged_until_keys_are_too_old() -> None:
    """
    While the issuer is out of order its last keys serve up to ``jwks_max_stale``; then the answer is 503, until it is back.
    """
    async with issuing(jwks_ttl_s=100.0, jwks_max_stale_s=200.0) as it:
        it.server.status = 503
        await it.after(80)
        while it.clock.seconds() < 190:
            assert await it.judged(signed(jti=str(it.clock.seconds()))) == "alice"
            await it.after(it.clock.getDelayedCalls()[0].getTime() - it.clock.seconds())
        while it.ring.ready():
            await it.after(it.clock.getDelayedCalls()[0].getTime() - it.clock.seconds())
        assert 200 <= it.clock.seconds() <= 202
        assert it.judge.cached == 0
        with pytest.raises(Problem) as caught:
            it.judge.authenticate(signed(), NOW)
        assert caught.value.kind.status == 503
        assert [name for name, _ in it.events].count("keys.expired") == 1
        assert ("keys.failed", "ValueError: status 503") in it.events
        it.server.status = 200
        await it.after(60)
        assert await it.judged(signed()) == "alice"


@pytest_twisted.ensureDeferred
async def test_without_any_keys_the_answer_is_503() -> None:
    """
    A token that nobody can judge is not called invalid; requests do not make the attempts more frequent.
    """
    async with issuing(start=False) as it:
        it.server.status = 500
        await it.started()
        for _ in range(3):
            with pytest.raises(Problem) as caught:
                it.judge.authenticate(signed(), NOW)
            assert caught.value.kind.code == "keys_unavailable"
            assert caught.value.headers == ((b"Retry-After", b"2"),)
        assert it.server.asked == 1
        await it.after(2)
        assert it.server.asked == 2
        with pytest.raises(Problem) as caught:
            it.judge.authenticate(signed(), NOW)
        assert caught.value.headers == ((b"Retry-After", b"4"),)


@pytest_twisted.ensureDeferred
async def test_refused_connection_is_an_outage() -> None:
    """
    An issuer that cannot be reached is tried again, less and less often, but at least once a minute.
    """
    async with issuing(start=False) as it:
        await it.server.close()
        await it.started()
        gaps = []
        for _ in range(8):
            gap = it.clock.getDelayedCalls()[0].getTime() - it.clock.seconds()
            gaps.append(gap)
            await it.after(gap)
        assert gaps == [2, 4, 8, 16, 32, 60, 60, 60]
        assert {name for name, _ in it.events} == {"keys.failed"}


BAD_SETS: list[tuple[str, dict[str, Any]]] = [
    ("empty", {"document": b""}),
    ("no keys", {"document": jwks()}),
    ("no JSON", {"document": b"<html>"}),
    ("a list", {"document": b"[]"}),
    ("keys an object", {"document": b'{"keys":{}}'}),
    ("keys twice", {"document": b'{"keys":[],"keys":[]}'}),
    ("only for encryption", {"document": jwks(jwk("P-256", "k1", use="enc"))}),
    ("only a secret", {"document": jwks({"kty": "oct", "k": "AAAA", "kid": "k1"})}),
    ("only private", {"document": jwks(jwk("P-256", "k1", d="AAAA"))}),
    ("only another algorithm", {"document": jwks(jwk("Ed25519", "k1"))}),
    ("too many", {"document": jwks(*[jwk("P-256", f"k{n}") for n in range(65)])}),
    ("too large", {"document": jwks(jwk("P-256", "k1", x5t="x" * 300_000))}),
    ("not found", {"status": 404}),
    ("redirected", {"status": 302, "headers": {"Location": "/elsewhere"}}),
    ("no content", {"status": 203}),
]


@pytest.mark.parametrize("answer", [answer for _, answer in BAD_SETS], ids=[name for name, _ in BAD_SETS])
@pytest_twisted.ensureDeferred
async def test_bad_set_never_replaces_a_good_one(answer: dict[str, Any]) -> None:
    """
    What cannot be used is reported, and the keys that were there go on verifying.
    """
    async with issuing() as it:
        assert await it.judged(signed()) == "alice"
        vars(it.server).update(answer)
        await it.after(480)
        assert it.events[-1][0] == "keys.failed"
        assert it.judge.cached == 1
        assert await it.judged(signed(jti="another")) == "alice"


@pytest_twisted.ensureDeferred
async def test_set_with_one_good_key_is_taken() -> None:
    """
    Keys that cannot be used are left out of a set; those that can are taken.
    """
    async with issuing() as it:
        it.server.document = jwks({"kty": "oct", "k": "AAAA", "kid": "s"}, jwk("P-384", "k3"), jwk("P-256", "k2"))
        assert await it.judged(signed("k2")) == "alice"
        assert await it.judged(token({"kid": "s"}, "HS256", "AAAA")) == "algorithm"


@pytest_twisted.ensureDeferred
async def test_caller_who_leaves_does_not_end_the_fetch() -> None:
    """
    A request that is given up while it waits for keys takes nothing from the others.
    """
    async with issuing(start=False) as it:
        it.server.holding = True
        it.ring.start()
        leaving = it.judge.authenticate(signed(), NOW)
        staying = Deferred.fromCoroutine(it.judged(signed()))
        assert isinstance(leaving, Deferred)
        leaving.cancel()
        with pytest.raises(CancelledError):
            await leaving
        it.server.release()
        assert await staying == "alice"


@pytest_twisted.ensureDeferred
async def test_stopping_lets_nobody_wait() -> None:
    """
    When the ring stops, the fetch is cut and whoever waited is answered 503.
    """
    async with issuing(start=False) as it:
        it.server.holding = True
        it.ring.start()
        waiting = Deferred.fromCoroutine(it.judged(signed()))
        await it.ring.stop()
        assert await waiting == "keys_unavailable"
        assert not it.clock.getDelayedCalls()


@pytest_twisted.ensureDeferred
async def test_change_of_configuration_keeps_fetched_keys() -> None:
    """
    Changing over keeps what was fetched from the same URL, even during an outage; a source that is gone is stopped.
    """
    async with issuing() as it:
        it.server.status = 500
        longer = Issuer(HMAC_ISSUER, ("gateway",), ("ES256", "RS256"), jwks_url=it.server.url, leeway_s=5.0)
        change = it.ring.prepare(Auth(issuer=(longer, hmac_issuer(issuer="https://second.example"))))
        change()
        it.judge.configure(Auth(issuer=(longer,)))
        assert it.ring.ready()
        assert it.server.asked == 1
        assert await it.judged(signed()) == "alice"
        assert await it.judged(token(iss="https://second.example")) == "alice"
        it.ring.prepare(Auth(issuer=(hmac_issuer(),)))()
        assert not it.clock.getDelayedCalls()
        assert await it.judged(signed()) == "algorithm"


@pytest_twisted.ensureDeferred
async def test_change_of_configuration_fetches_from_a_new_url() -> None:
    """
    Another URL is asked at once; the keys of the one before are not taken for its own.
    """
    async with issuing() as it:
        other = Issuer(HMAC_ISSUER, ("gateway",), ("ES256", "RS256"), jwks_url=it.server.url + "?v=2")
        happened = it.happened()
        it.ring.prepare(Auth(issuer=(other,)))()
        assert not it.ring.ready()
        await happened
        assert (it.ring.ready(), it.server.asked) == (True, 2)


def test_changed_key_file_ends_what_it_verified(tmp_path: Path) -> None:
    """
    A key file with other keys, read at a change-over, is known to whoever remembers tokens.
    """
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks(jwk("P-256", "k1")))
    section = Auth(issuer=(Issuer(HMAC_ISSUER, ("gateway",), ("ES256",), jwks_file=path),))
    changed: list[str] = []
    ring = KeyRing(section, no_fetch, Clock(), no_report)
    ring.watch(changed.append)
    path.write_bytes(jwks(jwk("P-256", "k1"), jwk("P-256-other", "k2")))
    ring.prepare(section)()
    assert not changed
    path.write_bytes(b"{}")
    with pytest.raises(ValueError, match="no array"):
        ring.prepare(section)
    path.write_bytes(jwks(jwk("P-256-other", "k2")))
    ring.prepare(section)()
    assert changed == [HMAC_ISSUER]


def test_fetch_that_cannot_begin_is_an_outage() -> None:
    """
    A fetch that raises is counted as failed; nothing else breaks.
    """

    def broken(*_: Any) -> Any:
        raise OSError("no more descriptors")

    events: list[str] = []
    clock = Clock()
    issuer = Issuer(HMAC_ISSUER, ("gateway",), ("ES256",), jwks_url="http://127.0.0.1:1/")
    ring = KeyRing(Auth(issuer=(issuer,)), broken, clock, lambda event, **more: events.append(event))
    ring.start()
    waiting = ring.sources[HMAC_ISSUER].fresher()
    assert events == ["keys.failed"]
    assert waiting is None
    clock.advance(60)
    assert len(events) > 1

"""
Limits of a whole gateway: exact over its workers, and what they are while Redis is away.
"""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.redis.server import RedisServer
from tests.system.backend import Backend
from tests.system.processes import ask, eventually, token
from tests.system.test_workers import served_by, several

HOURLY = '[limits]\nstore_timeout = "5s"\n[limits.policy.hourly]\nrate = "1/h"\nburst = 50\nkey = "user"\n'
"""The machine of a test may be slower than a store may be."""

AMPLE = '[limits.policy.ample]\nrate = "100000/s"\nkey = "user"\n[limits.policy.all]\nrate = "100000/s"\nkey = []\n'


def test_workers_count_together(twistd: str, gateway: str, backend: Backend, tmp_path: Path) -> None:
    """
    Of many requests on all workers at once exactly as many pass as the burst has; the others are told when to come back.
    """
    redis = RedisServer(tmp_path / "redis").start()
    try:
        body = backend.upstream + f'[store]\nurl = "{redis.url}"\n' + HOURLY
        with several(twistd, tmp_path, body, number=2) as served:
            bearer = token(gateway, tmp_path)
            with ThreadPoolExecutor(20) as pool:
                answers = list(pool.map(lambda _: ask(served.port, "/api/hello", bearer=bearer), range(200)))
            assert Counter(answer.status for answer in answers) == {200: 50, 429: 150}
            assert served_by(served, "/api/hello") == {"1", "2"}
            refused = next(answer for answer in answers if answer.status == 429)
            assert refused.headers["ratelimit-policy"] == '"hourly";q=1;w=3600'
            assert 3500 < int(refused.headers["retry-after"]) <= 3600
            assert refused.json["violated-policies"] == ["hourly"]
    finally:
        redis.stop()


def test_nobody_waits_for_a_store_that_hangs(twistd: str, gateway: str, backend: Backend, tmp_path: Path) -> None:
    """
    While Redis hangs, and while it is dead, requests pass as the policy says, and soon; then all count together again.
    """
    redis = RedisServer(tmp_path / "redis").start()
    try:
        body = backend.upstream + f'[store]\nurl = "{redis.url}"\n' + AMPLE
        with several(twistd, tmp_path, body, number=2) as served:
            bearer = token(gateway, tmp_path)

            def took_s(number: int = 40) -> list[float]:
                lasted = []
                for _ in range(number):
                    began = time.monotonic()
                    assert ask(served.port, "/api/hello", bearer=bearer).status == 200
                    lasted.append(time.monotonic() - began)
                return sorted(lasted)

            usual_s = took_s()[20]
            redis.pause()
            assert took_s()[20] < usual_s + 0.1
            redis.kill()
            assert took_s()[20] < usual_s + 0.1
            assert served.hear("limits.apart")
            redis.start()
            eventually("limits are counted together", lambda: took_s(2) and served.events("limits.together"))
    finally:
        redis.stop()

"""
Limits of requests: who is counted, in which order, and what is said of it.
"""

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
from prometheus_client.registry import Collector
from tests.node.recording import Recorded, head
from tests.node.test_edge import GOOD, Answering, Bearer, Remembering, Tokens, scopes
from twisted.internet.task import Clock

from gateway.config.load import parse
from gateway.config.sections import Limits
from gateway.core.address import AddressRule
from gateway.core.routes import Entry, RouteTable
from gateway.memory.limits import MemoryLimiter
from gateway.node.edge import Edge
from gateway.node.filters import ClientAddress, Credentials, Match, Rule, Trace
from gateway.node.http_spans import RequestSpans
from gateway.node.limiting import Limiting
from gateway.node.plan import Filter, Plan, ServedRoute
from gateway.node.rate_limits import RateLimits
from gateway.ports.http import Peer
from gateway.ports.limits import Charge, Told
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.spans import Spans

ROUTES = """
[[auth.issuer]]
issuer = "test"
audience = "gateway"
secret = "0123456789abcdef0123456789abcdef"
algorithms = "HS256"
[upstream.players]
http = "http://127.0.0.1:1"
[[route]]
path = "/api/players/{id}"
upstream = "players"
name = "players"
[[route]]
path = "/public/**"
upstream = "players"
auth = "none"
[[websocket]]
path = "/ws"
"""


class Stepping:
    """A store that answers when told to, and remembers each step."""

    def __init__(self, real: MemoryLimiter) -> None:
        self.steps: list[list[str]] = []
        self.waiting: list[tuple[Told, Sequence[Charge]]] = []
        self._real = real

    def spend(self, charges: Sequence[Charge], told: Told) -> None:
        self.steps.append([charge.key for charge in charges])
        self.waiting.append((told, charges))

    def answer(self) -> None:
        waiting, self.waiting = self.waiting, []
        for told, charges in waiting:
            told(self._real.spend(charges, told))

    async def forget(self, charges: Sequence[Charge]) -> None:
        await self._real.forget(charges)


class Site:
    """An edge with limits, put together as the application does."""

    def __init__(self, policies: str, *, stepping: bool = False) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.handler = Answering()
        self.metrics = Metrics()
        local = MemoryLimiter(self.clock.seconds)
        self.store = Stepping(MemoryLimiter(self.clock.seconds))
        shared: Any = self.store if stepping else local
        self.rates = RateLimits(shared, local, self.metrics.limit_decisions, self.clock.seconds)
        self.limiting = Limiting(self.rates, self.clock, self.metrics)
        routes = RouteTable(
            [
                Entry(
                    "/api/players/{id}", frozenset(), ServedRoute("players", self.handler, template="/api/players/{id}")
                ),
                Entry("/public/**", frozenset(), ServedRoute("/public/**", self.handler, auth=False)),
                Entry("/ws", frozenset(), ServedRoute("/ws", self.handler, auth=False, kind="opening")),
                Entry("/said", frozenset(), ServedRoute("/said", self.handler, auth=False, kind="said")),
                Entry("/health", frozenset(), ServedRoute("_health", self.handler, auth=False, kind="own")),
            ]
        )
        self.edge = Edge(self._plan(routes, Limits()), self.clock.seconds, Remembering(), self.rates.failed)
        limits = parse(ROUTES + policies, "/tmp/test.toml", {}).limits  # noqa: S108  # Nothing is read there.
        self.edge.plan = self._plan(routes, limits)

    def _plan(self, routes: Any, limits: Limits) -> Plan:
        self.rates.configure(limits)
        self.limiting.configure(limits)
        filters: tuple[Filter, ...] = (
            ClientAddress(AddressRule(())),
            Trace(random.Random(7).getrandbits, RequestSpans(Spans.off())),
            *self.limiting.arrival(),
            Match(routes, ServedRoute("_options", self.handler, auth=False)),
            *self.limiting.doors(),
            Credentials(Tokens(), Bearer(), scopes, lambda: 1e9),
            *self.limiting.known(),
            Rule(),
        )
        return Plan(filters, routes)

    def begin(self, target: str, headers: dict[str, str] | None = None, host: str = "192.0.2.7") -> Recorded:
        downstream = Recorded(head("GET", target, headers), Peer(host, 4711))
        self.edge.begin(downstream)
        return downstream

    def statuses(self, number: int, target: str, headers: dict[str, str] | None = None, host: str = "192.0.2.7") -> Any:
        answers = [self.begin(target, headers, host) for _ in range(number)]
        if not all(answer.started for answer in answers):
            # What is shed is told half a second later, some at a time.
            self.clock.pump([0.49, 0.02, 0.02])
        return [answer.status for answer in answers]


def fields(answer: Recorded) -> dict[bytes, bytes]:
    return dict(line.split(b": ", 1) for line in answer.block.split(b"\r\n") if line)


def test_nothing_without_policies() -> None:
    """
    Without policies there is no filter for them.
    """
    limiting = Site("").limiting
    assert (limiting.arrival(), limiting.doors(), limiting.known()) == ((), (), ())


def test_what_is_said() -> None:
    """
    A 429 says which policies, how they stand and when to come back, in all of its places alike.
    """
    site = Site('[limits.policy."http per address"]\nrate = "2/m"\n')
    assert site.statuses(2, "/public/a") == [200, 200]
    answer = site.begin("/public/a")
    told = fields(answer)
    assert answer.status == 429
    assert told[b"RateLimit"] == b'"http per address";r=0;t=30'
    assert told[b"RateLimit-Policy"] == b'"http per address";q=2;w=60'
    assert told[b"Retry-After"] == b"30"
    assert told[b"X-Gateway-Error"] == b"RL"
    problem = json.loads(answer.body)
    assert problem["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert (problem["code"], problem["retriable"], problem["violated-policies"]) == (
        "rate_limited",
        True,
        ["http per address"],
    )
    assert site.statuses(1, "/public/a", host="192.0.2.8") == [200]
    site.clock.advance(30)
    assert site.statuses(2, "/public/a") == [200, 429]
    assert len(site.handler.seen) == 4
    decisions = site.metrics.limit_decisions
    assert decisions.value("http per address", "passed", "memory") == 4
    assert decisions.value("http per address", "refused", "memory") == 2


def test_told_always() -> None:
    """
    By option every answer tells of the policy that has least left.
    """
    site = Site(
        '[limits]\ntell = "always"\n[limits.policy.a]\nrate = "9/m"\n'
        '[limits.policy.u]\nrate = "3/m"\nkey = "user"\nroutes = "players"\n'
    )
    told = fields(site.begin("/api/players/7", GOOD))
    assert told[b"RateLimit"] == b'"u";r=2;t=1'
    assert told[b"X-Backend"] == b"yes"


def test_addresses_come_first() -> None:
    """
    An address's budget is taken before the path or a token is looked at; of IPv6 a /64 has one.
    """
    site = Site('[limits.policy.a]\nrate = "3/m"\n')
    assert site.statuses(2, "/nowhere") == [404, 404]
    assert site.statuses(2, "/api/players/7", {"Authorization": "Bearer bad"}) == [401, 429]
    for host in ("2001:db8::1", "2001:db8::2", "2001:db8::ffff:3"):
        assert site.statuses(1, "/public/a", host=host) == [200]
    assert site.statuses(1, "/public/a", host="2001:db8::4") == [429]
    assert site.statuses(1, "/public/a", host="2001:db8:0:1::4") == [200]
    assert site.statuses(5, "/health") == [200] * 5


def test_users() -> None:
    """
    A user has one budget from wherever; who has none is counted by address, and is nobody else.
    """
    site = Site('[limits.policy.u]\nrate = "2/m"\nkey = "user"\n')
    assert site.statuses(1, "/api/players/7", GOOD) == [200]
    assert site.statuses(2, "/api/players/8", GOOD, host="192.0.2.8") == [200, 429]
    assert site.statuses(3, "/public/a") == [200, 200, 429]
    assert site.statuses(1, "/api/players/7", {"Authorization": "Bearer bad"}) == [401]


@pytest.mark.parametrize(
    ("policy", "passes"),
    [
        ('key = "route"', [("/public/a", "1", 200), ("/public/b", "2", 429), ("/ws", "1", 200)]),
        ("key = []", [("/public/a", "1", 200), ("/ws", "2", 429)]),
        ('key = ["address", "route"]', [("/public/a", "1", 200), ("/public/a", "2", 200), ("/public/b", "1", 429)]),
        ('routes = "/pub*"', [("/ws", "1", 200), ("/ws", "1", 200), ("/public/a", "1", 200), ("/public/b", "1", 429)]),
        (
            "key = \"header['x-tenant']\"",
            [("/public/a", "1", 200), ("/public/a", "2", 200), ("/public/a", "2", 429), ("/public/b", "", 200)],
        ),
    ],
)
def test_whose_budget(policy: str, passes: list[tuple[str, str, int]]) -> None:
    """
    Budgets are kept by route, by all together, by several things at once, or by what an expression says.
    """
    site = Site(f'[limits.policy.p]\nrate = "1/m"\n{policy}\n')
    seen = []
    for target, who, _ in passes:
        host = f"192.0.2.{who}" if "header" not in policy else "192.0.2.7"
        seen.append(site.begin(target, {"X-Tenant": who} if who else None, host).status)
    assert seen == [status for _, _, status in passes]


def test_the_server_as_a_whole() -> None:
    """
    A question about the server itself has no path, and is counted by its address alone.
    """
    site = Site('[limits.policy.p]\nrate = "1/m"\nkey = "request.path"\n[limits.policy.a]\nrate = "2/m"\n')
    assert site.statuses(3, "*") == [200, 200, 429]


def test_one_step_for_all() -> None:
    """
    All policies of a request are asked of the store in one step: one before its token is looked at, and one behind.
    """
    site = Site(
        '[limits.policy.a]\nrate = "9/m"\n[limits.policy.b]\nrate = "99/h"\n'
        '[limits.policy.u]\nrate = "1/m"\nkey = "user"\n[limits.policy.r]\nrate = "9/m"\nkey = "route"\n',
        stepping=True,
    )
    first, second = site.begin("/api/players/7", GOOD), site.begin("/api/players/7", GOOD)
    assert site.store.steps == [["a:192.0.2.7"] * 2] * 2
    site.store.answer()
    assert site.store.steps[2:] == [["u:alice", "r:players"]] * 2
    assert (first.started, second.started) == (False, False)
    site.store.answer()
    assert (first.status, second.status) == (200, 429)
    assert fields(second)[b"RateLimit"] == b'"u";r=0;t=60'
    # What is counted here is asked first; the store is not asked about what that refuses.
    site = Site('[limits.policy.a]\nrate = "9/m"\n[limits.policy.h]\nrate = "1/m"\nshared = false\n', stepping=True)
    assert site.begin("/public/a").status == 0
    assert site.begin("/public/a").status == 429
    assert len(site.store.steps) == 1


def test_failures() -> None:
    """
    Tokens that are refused count against their address; when that is used up, nothing of it is looked at for a while.
    """
    bad = {"Authorization": "Bearer bad"}
    site = Site('[limits.policy.f]\nrate = "1/s"\nburst = 3\non = "auth_failures"\n')
    assert site.statuses(5, "/api/players/7") == [401] * 5, "no token is no failure"
    assert site.statuses(4, "/api/players/7", bad) == [401, 401, 401, 429]
    assert site.statuses(1, "/api/players/7", GOOD) == [429]
    assert site.statuses(1, "/api/players/7", GOOD, host="192.0.2.8") == [200]
    assert site.statuses(2, "/health") == [200, 200]
    site.clock.advance(1.01)
    assert site.statuses(3, "/api/players/7", bad) == [401, 429, 429]


def test_openings() -> None:
    """
    Real-time connections are opened at the rate that is set; the others are told moments one after the other.
    """
    site = Site('[limits]\nopenings = "40/s"\n')
    answers = [site.begin("/ws") for _ in range(102)]
    assert [answer.status for answer in answers] == [200, 200] + [503] * 100
    waits = [int(fields(answer)[b"Retry-After"]) for answer in answers[2:]]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (1, 3)
    assert all(waits.count(second) <= 60 for second in set(waits))
    assert site.statuses(1, "/public/a") == [200]
    site.clock.advance(0.1)
    assert site.statuses(3, "/ws") == [200, 200, 503]
    assert site.limiting.admission.refused == 101


def test_openings_of_an_address() -> None:
    """
    A policy of openings counts them alone.
    """
    site = Site('[limits.policy.c]\nrate = "1/m"\non = "connect"\n')
    assert site.statuses(3, "/public/a") == [200] * 3
    assert site.statuses(2, "/ws") == [200, 429]
    assert site.statuses(1, "/ws", host="192.0.2.8") == [200]


def test_shedding() -> None:
    """
    Late, an instance refuses openings and strangers before callers with a credential, and never what it has begun.
    """
    site = Site('[limits]\nshed_lag = "50ms"\n')
    pressure = site.limiting.pressure
    assert site.statuses(3, "/public/a") == [200] * 3
    while pressure.share < 0.5:
        pressure.measured(0.08)
    assert site.statuses(4, "/public/a") == [503] * 4
    assert site.statuses(4, "/ws", GOOD) == [503] * 4
    assert site.statuses(4, "/api/players/7", GOOD).count(200) >= 3
    for _ in range(40):
        pressure.measured(0.5)
    assert site.statuses(20, "/api/players/7", GOOD).count(503) >= 18
    assert site.statuses(3, "/said") == [200] * 3
    assert site.statuses(3, "/health") == [200] * 3
    answer = site.begin("/public/a")
    assert not answer.started, "who asks again at once would keep it busy with refusals"
    site.clock.pump([0.49, 0.02, 0.02])
    assert fields(answer)[b"X-Gateway-Error"] == b"OL"
    assert fields(answer)[b"Retry-After"] == b"1"
    assert json.loads(answer.body)["type"].endswith("#temporary-reduced-capacity")
    for _ in range(40):
        pressure.measured(0.0)
    assert site.statuses(3, "/ws") == [200] * 3


def test_metrics_of_limits() -> None:
    """
    What is kept and refused is told to whoever scrapes.
    """
    site = Site('[limits]\nopenings = "1/h"\n[limits.policy.p]\nrate = "1/m"\n')
    site.statuses(3, "/ws")
    found: dict[str, float] = {}
    collectors: list[Collector] = [site.metrics.limit_keys, site.metrics.openings_refused]
    for each in collectors:
        for family in each.collect():
            found[family.name] = family.samples[0].value
    assert found == {"gateway_ratelimit_keys": 1.0, "gateway_openings_refused": 0.0}


def test_reload_keeps_budgets() -> None:
    """
    Budgets are kept by the policy's name: a reload gives nobody a new one.
    """
    site = Site('[limits.policy.p]\nrate = "2/m"\n')
    assert site.statuses(2, "/public/a") == [200, 200]
    limits = parse(ROUTES + '[limits.policy.p]\nrate = "2/m"\nburst = 3\n', "/tmp/test.toml", {}).limits  # noqa: S108  # As above.
    site.edge.plan = site._plan(site.edge.plan.routes, limits)
    assert site.statuses(2, "/public/a") == [200, 429]

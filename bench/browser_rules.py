"""
What rules for browsers cost: nanoseconds a proxied answer, of its head's block alone.

``python -m bench.browser_rules``: without rules, with the default headers, and with CORS for a page.
"""

from __future__ import annotations

from timeit import repeat

from gateway.browsing import rules_for_all
from gateway.config.browser_sections import Cors
from gateway.config.sections import Config
from gateway.core.browser_rules import BrowserRules
from gateway.core.message import RequestHead
from gateway.ports.http import Exchange, Peer
from gateway.upstream.response import PlainHeads

RAW = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Mon, 23 Nov 2026 18:00:00 GMT\r\n"
    b"Server: backend\r\n%bContent-Length: 120\r\n\r\n"
)
TIMES = 200_000


class _Downstream:
    def __init__(self, *fields: tuple[bytes, bytes]) -> None:
        self.head = RequestHead(b"GET", b"/", list(fields), dict(fields))
        self.peer = Peer("127.0.0.1", 1)


def _cost_ns(rules: BrowserRules | None, said: bytes, *fields: tuple[bytes, bytes]) -> float:
    exchange = Exchange(_Downstream(*fields), 0.0)  # type: ignore[arg-type]  # all that is asked for
    exchange.browsers = rules
    raw = RAW % said
    head = PlainHeads(8192).read(raw, len(raw))
    assert head is not None
    return min(repeat(lambda: exchange.block_of(head), number=TIMES, repeat=5)) / TIMES * 1e9


def main() -> None:
    """Measure and print."""
    page = (b"origin", b"https://play.example")
    safe = rules_for_all(Config())
    cors = rules_for_all(Config(cors=Cors(origins=("https://play.example",))))
    bare = _cost_ns(None, b"")
    for name, cost in (
        ("no rules", bare),
        ("headers", _cost_ns(safe, b"")),
        ("headers, the backend says some", _cost_ns(safe, b"Cache-Control: no-cache\r\n")),
        ("headers and CORS, no page", _cost_ns(cors, b"")),
        ("headers and CORS, a page", _cost_ns(cors, b"", page)),
    ):
        print(f"{name:32} {cost:6.0f} ns, {cost - bare:+6.0f}")


if __name__ == "__main__":
    main()

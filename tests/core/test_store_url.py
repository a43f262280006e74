"""
The URL of a store.
"""

import pytest

from gateway.core.store_url import BadStoreUrl, StoreUrl, read_store_url


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("memory://", StoreUrl("memory")),
        ("redis://r", StoreUrl("single", (("r", 6379),))),
        ("redis://127.0.0.1:7/3", StoreUrl("single", (("127.0.0.1", 7),), database=3)),
        ("rediss://[::1]:7", StoreUrl("single", (("::1", 7),), tls=True)),
        ("redis+unix:///run/r.sock", StoreUrl("unix", path="/run/r.sock")),
        ("redis+sentinel://a,b:2/main/1", StoreUrl("sentinel", (("a", 26379), ("b", 2)), service="main", database=1)),
        ("rediss+cluster://a:1,b:2", StoreUrl("cluster", (("a", 1), ("b", 2)), tls=True)),
    ],
)
def test_what_a_url_means(text: str, read: StoreUrl) -> None:
    """
    Each kind of store has a URL.
    """
    assert read_store_url(text) == read
    assert read.shared is (read.kind != "memory")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("redis", "expected memory"),
        ("memory://x", "nothing behind"),
        ("http://r", "no kind of store"),
        ("redis+x://r", "no kind of store"),
        ("redis://user:hush@r", r"\[store\]"),
        ("redis://r?db=1", "parameters"),
        ("redis://", "host is missing"),
        ("redis://r:99999", "no port"),
        ("redis://[::1", "no host"),
        ("redis://a,b", "one server"),
        ("redis://r/x", "no number"),
        ("redis+cluster://r/1", "no databases"),
        ("redis+sentinel://r", "service"),
        ("redis+unix://r/x", "redis.sock"),
        ("rediss+unix:///x", "redis.sock"),
    ],
)
def test_what_is_no_url(text: str, told: str) -> None:
    """
    What is wrong is told, and a password is never repeated.
    """
    with pytest.raises(BadStoreUrl, match=told) as bad:
        read_store_url(text)
    assert "hush" not in str(bad.value)

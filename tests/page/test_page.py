"""
The demo's page in a real browser: two windows that play against each other, and a connection that is cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.page.browser import Browser, Window, chromium
from tests.system.test_demo import Shown, demo, shown


@pytest.fixture(scope="module")
def shown_demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    folder: Path = tmp_path_factory.mktemp("page")
    with shown(demo("--data", str(folder)), folder) as it:
        yield it


@pytest.fixture(scope="module")
def page(shown_demo: Shown) -> str:
    return f"http://127.0.0.1:{shown_demo.curl()[0]}/"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


def player(browser: Browser, page: str, name: str) -> Window:
    window = browser.window()
    arrive(window, page, name)
    return window


def arrive(window: Window, page: str, name: str) -> None:
    window.open(page)
    window.type("name", name)
    window.until("document.getElementById('strip').dataset.state === 'connected'")
    window.until("!document.getElementById('lobby').hidden")


def board(window: Window) -> str:
    return str(window.run("[...document.querySelectorAll('#board button')].map(b => b.dataset.disc).join('')"))


def drop(window: Window, column: int) -> None:
    window.click(f"#board button[data-column='{column}']")


def test_two_play(browser: Browser, page: str) -> None:
    """
    Both see the lobby, the table, each move, the chat and who is there; the cut one recovers what it missed.
    """
    red, yellow = player(browser, page, "Rosa"), player(browser, page, "Yves")
    red.until("document.getElementById('here').innerText.includes('Yves')")
    yellow.until("document.getElementById('here').innerText.includes('Rosa')")

    red.type("table-name", "Blue Room")
    red.until("document.getElementById('title').innerText === 'Blue Room'")
    yellow.until("document.getElementById('tables').innerText.includes('Blue Room')")
    yellow.click("#tables button")
    yellow.until("document.getElementById('title').innerText === 'Blue Room'")
    red.until("document.getElementById('watching').innerText.includes('Yves')")

    red.click("button[data-seat=RED]")
    yellow.click("button[data-seat=YELLOW]")
    red.until("document.getElementById('turn').innerText === 'Your turn'")
    drop(red, 3)
    yellow.until("document.getElementById('turn').innerText === 'Your turn'")
    assert board(yellow) == board(red) == "." * 38 + "R..."
    drop(yellow, 3)
    red.until("document.getElementById('turn').innerText === 'Your turn'")

    red.type("text", "good luck")
    yellow.until("document.getElementById('chat').innerText.includes('Rosa: good luck')")
    assert re.fullmatch(
        r"[0-9.]+ ms",
        red.until(
            "/ms/.test(document.getElementById('latency').innerText) && document.getElementById('latency').innerText"
        ),
    )

    # Yves is away while Rosa moves and talks.
    yellow.click("#cut")
    yellow.until("document.getElementById('strip').dataset.state === 'connecting'")
    drop(red, 2)
    red.type("text", "still there?")
    red.until("document.getElementById('chat').innerText.includes('still there?')")
    assert "still there?" not in yellow.text("chat")
    yellow.until("document.getElementById('strip').dataset.state === 'connected'")
    yellow.until("document.getElementById('turn').innerText === 'Your turn'")
    yellow.until("document.getElementById('chat').innerText.includes('Rosa: still there?')")
    assert yellow.text("chat").count("still there?") == 1
    assert "recovered" in yellow.text("missed")
    assert board(yellow) == board(red)

    drop(yellow, 3)
    for column, window in ((2, red), (3, yellow), (2, red), (0, yellow), (2, red)):
        window.until("document.getElementById('turn').innerText === 'Your turn'")
        drop(window, column)
    red.until("document.getElementById('turn').innerText === 'You won'")
    yellow.until("document.getElementById('turn').innerText === 'rosa won'")


def test_what_is_refused_is_said(browser: Browser, page: str) -> None:
    """
    A move out of turn, and a word from somebody who does not sit there, are refused where one sees it.
    """
    guest = player(browser, page, "Guest")
    guest.type("table-name", "Green Room")
    guest.until("document.getElementById('title').innerText === 'Green Room'")
    drop(guest, 0)
    guest.until("document.getElementById('trouble').innerText.includes('do not sit')")
    guest.type("text", "hello?")
    guest.until("document.getElementById('trouble').innerText.includes('permission denied')")


def test_a_phone(browser: Browser, page: str) -> None:
    """
    On a narrow screen nothing is wider than the screen, and what is touched is large enough.
    """
    window = player(browser, page, "Tiny")
    window.send("Emulation.setDeviceMetricsOverride", width=360, height=640, deviceScaleFactor=2, mobile=True)
    window.type("table-name", "A table whose name is as long as can be")
    window.until("!document.getElementById('table').hidden && document.querySelectorAll('#board button').length === 42")
    assert window.run("document.documentElement.scrollWidth <= 360")
    assert window.run(
        "[...document.querySelectorAll('#say button, #back')].every(b => b.getBoundingClientRect().height >= 44)"
    )


def test_the_sessions_page_shows_who_plays(browser: Browser, page: str, shown_demo: Shown) -> None:
    """
    Whoever plays stands on the Event Service's page, as what they came with; a cut goes on as the same session, and leaving ends it.
    """
    (sessions,) = re.findall(r"(http://127\.0\.0\.1:\d+) +who plays", shown_demo.said)
    playing, looking = player(browser, page, "Sina"), browser.window()
    looking.open(sessions)
    line = "[...document.querySelectorAll('#latest li')].map(l => l.innerText).find(t => t.includes('sina')) || ''"
    first = looking.until(line)
    assert "web" in first
    assert "Linux" in first
    assert int(looking.run("document.querySelector('#live b').innerText")) >= 1
    assert "web" in looking.text("types")
    playing.click("#cut")
    looking.until(f"({line}).includes('resumed 1×')")
    playing.open("about:blank")
    looking.until(f"/ after [0-9.]+ (s|min)/.test({line})")
    assert (
        looking.run("[...document.querySelectorAll('#latest li')].filter(l => l.innerText.includes('sina')).length")
        == 1
    )

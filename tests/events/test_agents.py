"""
What kind of client somebody is.
"""

import pytest

from gateway.events.agents import Agent, Agents

AGENTS = Agents()
CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"
)
SAFARI = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4 Mobile/15E148 Safari/604.1"
ELECTRON = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) tetris/1.0 Chrome/120.0 Electron/28.0 Safari/537.36"
GOOGLE = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
PLAYSTATION = "Mozilla/5.0 (PlayStation; PlayStation 5/6.50) AppleWebKit/605.1.15 (KHTML, like Gecko)"


@pytest.mark.parametrize(
    ("name", "user_agent", "expected"),
    [
        ("js", CHROME, Agent("web", "Windows", "Chrome")),
        ("js", SAFARI, Agent("web", "iOS", "Mobile Safari")),
        ("js", "node", Agent("server", "", "")),
        ("js", ELECTRON, Agent("desktop", "Linux", "")),
        ("js", GOOGLE, Agent("bot", "", "Googlebot")),
        ("", PLAYSTATION, Agent("console", "", "")),
        ("swift", "tetris/1.2 CFNetwork/1490.0.4 Darwin/23.2.0", Agent("mobile", "iOS", "")),
        ("java", "okhttp/4.12.0", Agent("mobile", "", "")),
        ("dart", "Dart/3.4 (dart:io)", Agent("mobile", "", "")),
        ("python", "Python/3.11 websockets/13.1", Agent("server", "", "")),
        ("go", "Go-http-client/1.1", Agent("server", "", "")),
        ("tetris-ios", "", Agent("mobile", "iOS", "")),
        ("tetris-android/beta", "okhttp/4.12.0", Agent("mobile", "Android", "")),
        ("Unity_PS5", "UnityPlayer/2022.3.1f1 (UnityWebRequest/1.0)", Agent("console", "", "")),
        ("tetris-bot", CHROME, Agent("bot", "Windows", "Chrome")),
        ("tetris-desktop", "", Agent("desktop", "", "")),
        ("kiosk", CHROME, Agent("console", "Windows", "Chrome")),
        ("", "", Agent("other", "", "")),
        ("robotnik", "a" * 512, Agent("other", "", "")),
    ],
)
def test_client(name: str, user_agent: str, expected: Agent) -> None:
    """
    The configuration's word comes first, then the words of the name, then the user agent, then which SDK it is.
    """
    assert AGENTS.read(name, user_agent, {"kiosk": "console"}) == expected


def test_what_is_remembered_is_bounded() -> None:
    """
    Thousands of user agents, each another, take no more room than the bound.
    """
    agents = Agents()
    for number in range(5000):
        agents.read("", f"okhttp/{number}", {})
    assert agents._read.cache_info().currsize == 4096

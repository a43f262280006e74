"""
A headless Chromium, spoken to by its DevTools protocol.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

WITHIN_S = 30.0


class Window:
    """
    A window with cookies and storage of its own.
    """

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.send("Page.enable")
        self.send("Runtime.enable")

    def send(self, method: str, **parameters: Any) -> Any:
        """Give the page an order."""
        return self._browser.send(method, self._session, **parameters)

    def open(self, url: str) -> None:
        """Go to *url*."""
        self.send("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """Evaluate *script*; return its value."""
        found = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, script: str) -> Any:
        """Wait until *script* is true; return its value."""
        deadline = time.monotonic() + WITHIN_S
        while True:
            value = self.run(script)
            if value:
                return value
            assert time.monotonic() < deadline, f"never true: {script}\n{self.run('document.body.innerText')}"
            time.sleep(0.05)

    def text(self, element: str) -> str:
        """The text of an element by its id."""
        return str(self.run(f"document.getElementById({element!r}).innerText"))

    def type(self, element: str, text: str) -> None:
        """Fill a field and send its form."""
        self.run(
            f"(e => {{ e.value = {json.dumps(text)}; e.form.requestSubmit(); }})(document.getElementById({element!r}))"
        )

    def click(self, selector: str) -> None:
        """Click on the first element of a selector, once it is there."""
        self.until(f"!!document.querySelector({selector!r})")
        self.run(f"document.querySelector({selector!r}).click()")


class Browser:
    """
    One Chromium.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0

    def send(self, method: str, session: str = "", **parameters: Any) -> Any:
        """Give an order and wait for its result; events that come beside it are dropped."""
        self._number += 1
        order: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session:
            order["sessionId"] = session
        self._connection.send(json.dumps(order))
        while True:
            message = json.loads(self._connection.recv(WITHIN_S))
            if message.get("id") == self._number:
                assert "error" not in message, message["error"]
                return message["result"]

    def window(self) -> Window:
        """Open a window that knows nothing of the others."""
        context = self.send("Target.createBrowserContext")["browserContextId"]
        target = self.send("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        return Window(self, self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])


@contextmanager
def chromium() -> Iterator[Browser]:
    """
    Run Chromium until the block ends.
    """
    program = shutil.which("chromium")
    assert program is not None, "chromium is missing. As root: apt-get install chromium"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--headless=new", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0", "--mute-audio"]
        options += [f"--user-data-dir={profile}", "--disable-dev-shm-usage", "--window-size=400,800"]
        if os.getuid() == 0:
            options.append("--no-sandbox")  # Chromium refuses to have one as root.
        process = subprocess.Popen(
            [program, *options], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            port, path = _endpoint(process, Path(profile) / "DevToolsActivePort")
            with connect(f"ws://127.0.0.1:{port}{path}", max_size=None, proxy=None) as connection:
                yield Browser(connection)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _endpoint(process: subprocess.Popen[bytes], file: Path) -> tuple[str, str]:
    deadline = time.monotonic() + WITHIN_S
    while True:
        lines = file.read_text().split() if file.exists() else []
        if len(lines) == 2:
            return lines[0], lines[1]
        assert process.poll() is None, "chromium ended at once"
        assert time.monotonic() < deadline, "chromium did not begin to listen"
        time.sleep(0.05)

"""
What somebody at a terminal sees: a line to write in, completion, pages, and views that refresh.

Keys: Tab completes; Ctrl-C ends what runs, Ctrl-D leaves. Of a page: space for the next, Enter for a line, ``a`` for
all that is left, ``q`` for no more. What is shown is asked for only when the one before was taken, so a terminal
that reads slowly waits for itself.
"""

from __future__ import annotations

import shlex
import string
from collections.abc import Callable, Coroutine
from typing import Any, Final

from twisted.conch.recvline import HistoricRecvLine
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from gateway.console.desk import Caller, Desk
from gateway.console.flow import Flow
from gateway.console.python import Python
from gateway.console.text import lines, plain
from gateway.console.told import Refusal
from gateway.console.verb import MOST_LINE, split

__all__ = ["Terminal"]

CTRL_C: Final = b"\x03"
CTRL_D: Final = b"\x04"
CTRL_L: Final = b"\x0c"
CTRL_U: Final = b"\x15"

MOST_HISTORY: Final = 100
MOST_SHOWN: Final = 40
"""Names that are shown to choose from."""

_MORE: Final = b"-- more: space, Enter, a for all, q --"
_WELCOME: Final = "The gateway's support console. help lists what can be asked, Tab completes, exit leaves."
_SIGNS: Final = string.punctuation.encode("ascii") + b" "
_LEAVES: Final = frozenset(("exit", "quit", "logout"))


class Terminal(HistoricRecvLine):
    """
    One person's terminal.

    Args:
        flow: Whether what was written was taken.
        python: Makes the Python prompt; None where there is none.
        left: Called once when it is over.
    """

    ps = (b"gateway> ", b"... ")

    def __init__(
        self,
        reactor: Any,
        desk: Desk,
        caller: Caller,
        flow: Flow,
        *,
        idle_s: float,
        python: Callable[[Terminal], Python] | None = None,
        left: Callable[[], None] = lambda: None,
    ) -> None:
        self._reactor = reactor
        self._desk = desk
        self._caller = caller
        self._flow = flow
        self._idle_s = idle_s
        self._make_python = python
        self._left = left
        self._python: Python | None = None
        self._running: Deferred[Any] | None = None
        self._key: Deferred[bytes] | None = None
        self._live = False
        self._unended = False
        self._row = 0
        self._all = False
        self._idle: Any = None

    def connectionMade(self) -> None:
        """Greet."""
        super().connectionMade()
        self.keyHandlers |= {
            CTRL_C: self._interrupt,
            CTRL_D: self._end,
            CTRL_L: self._clear,
            CTRL_U: self._forget_line,
            b"\x7f": self.handle_BACKSPACE,
            b"\x08": self.handle_BACKSPACE,
        }
        self._idle = self._reactor.callLater(self._idle_s, self._put_out)

    def initializeScreen(self) -> None:
        """Leave what stands on the screen."""
        self.setInsertMode()
        self._say(f"{_WELCOME}\nYou are {plain(self._caller.name)}, {self._caller.role}.")
        self._prompt()

    def terminalSize(self, width: int, height: int) -> None:
        """Take the terminal's size; nothing is drawn again."""
        self.width, self.height = max(20, width), max(4, height)

    def connectionLost(self, reason: Failure | None = None) -> None:
        """End what runs for it."""
        if self._idle is not None and self._idle.active():
            self._idle.cancel()
        self._flow.end()
        if self._running is not None:
            self._running.cancel()
        left, self._left = self._left, lambda: None
        left()

    def _put_out(self) -> None:
        self._say("\nNothing was said for too long.")
        self.terminal.loseConnection()

    # Keys.

    def keystrokeReceived(self, keyID: Any, modifier: Any) -> None:
        """Take a key."""
        if self._idle.active():
            self._idle.reset(self._idle_s)
        if self._key is not None and keyID != CTRL_C:
            key, self._key = self._key, None
            key.callback(keyID if isinstance(keyID, bytes) else b"")
            return
        if self._running is not None:
            if keyID == CTRL_C or (self._live and keyID in (b"q", b"Q", CTRL_D)):
                self._interrupt()
            return
        handler = self.keyHandlers.get(keyID)
        if handler is not None:
            handler()
        elif isinstance(keyID, bytes) and (keyID >= b"\x80" or keyID.isalnum() or keyID in _SIGNS):
            self._write_one(keyID)

    def _write_one(self, sign: bytes) -> None:
        if len(self.lineBuffer) < MOST_LINE:
            self.characterReceived(sign, False)

    def _interrupt(self) -> None:
        if self._running is not None:
            self._running.cancel()
            return
        self._say("^C")
        self._python = None if self._python is None else self._python.anew()
        self._forget()
        self._prompt()

    def _forget(self) -> None:
        self.lineBuffer, self.lineBufferIndex, self.pn = [], 0, 0

    def _forget_line(self) -> None:
        self.handle_HOME()
        self.terminal.eraseToLineEnd()
        self._forget()

    def _clear(self) -> None:
        self.terminal.eraseDisplay()
        self.terminal.cursorHome()
        self.drawInputLine()

    def _end(self) -> None:
        if self.lineBuffer:
            return
        if self._python is not None:
            self._python = None
            self.ps, self.pn = type(self).ps, 0
            self._say("")
            self._prompt()
            return
        self._say("")
        self.terminal.loseConnection()

    # Lines.

    def handle_RETURN(self) -> None:
        """Take the line, and remember it."""
        super().handle_RETURN()
        del self.historyLines[:-MOST_HISTORY]
        self.historyPosition = len(self.historyLines)

    def lineReceived(self, line: bytes) -> None:
        """Do what it says."""
        text = line.decode("utf-8", "replace")
        if self._python is not None:
            self._desk.ordered(self._caller, text, "ok")
            self._unended = False
            self.pn = 1 if self._python.push(text) else 0
            if self._unended:
                self._say("")
            self._prompt()
            return
        word = text.strip()
        if word in _LEAVES:
            self.terminal.loseConnection()
        elif word == "python":
            self._begin_python()
            self._prompt()
        elif not word:
            self._prompt()
        else:
            self._start(self._run(word))

    def _begin_python(self) -> None:
        if self._make_python is None or self._caller.role != "developer":
            self._desk.ordered(self._caller, "python", "denied")
            self._say("python is for developers, over ssh with a key, where [console] says python = true")
            return
        self._desk.ordered(self._caller, "python", "ok")
        self._python = self._make_python(self)
        self.ps = (b">>> ", b"... ")
        self._say("`gateway` and `node` are what runs here: whatever takes long stops everybody. Ctrl-D goes back.")

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        def done(result: Any) -> None:
            self._running = self._key = None
            self._live = False
            if isinstance(result, Failure):
                if result.check(Refusal):
                    self._say(plain(str(result.value)))
                elif result.check(CancelledError):
                    self._say("^C")
                else:
                    self._say("the console failed")
                    self._desk.broke(result)
            self._prompt()

        self._row, self._all = 0, False
        running = self._running = Deferred.fromCoroutine(coroutine)
        running.addBoth(done)

    async def _run(self, line: str) -> None:
        told = await self._desk.line(self._caller, line)
        words = split(line)
        self._live = bool(told.again_s)
        on = False
        while True:
            shown = lines(told, on=on)
            on = any(not table.title for table in told.tables) or on
            if words[0] == "top":
                self.terminal.eraseDisplay()
                self.terminal.cursorHome()
                shown = [*shown, "", "q ends it"][: self.height - 1]
            if not await self._show(shown) or not told.next:
                return
            if told.again_s:
                await deferLater(self._reactor, told.again_s)
            told = await self._desk.again(self._caller, words, told.next)

    async def _show(self, shown: list[str]) -> bool:
        """Show lines, page by page unless they come by themselves; False if somebody has seen enough."""
        for line in shown:
            if not self._live and not self._all and self._row >= self.height - 1:
                self.terminal.write(_MORE)
                key = await self._next_key()
                self.terminal.write(b"\r" + b" " * len(_MORE) + b"\r")
                if key in (b"q", b"Q"):
                    return False
                self._all = key in (b"a", b"A")
                self._row = self.height - 2 if key in (b"\r", b"\n") else 0
            self._say(line)
            self._row += max(1, -(-len(line) // self.width))
            if self._flow.blocked:
                await self._flow.taken()
        if self._all:
            # Somebody else's turn, however fast this terminal is.
            await deferLater(self._reactor, 0)
        return True

    async def _next_key(self) -> bytes:
        self._key = Deferred()
        return await self._key

    # Completion.

    def handle_TAB(self) -> None:
        """Complete the word at the cursor."""
        if self._python is not None:
            for sign in b"    ":
                self.characterReceived(bytes((sign,)), False)
            return
        before = b"".join(self.lineBuffer[: self.lineBufferIndex])
        self._start(self._complete(before.decode("utf-8", "replace")))

    async def _complete(self, before: str) -> None:
        found = [shlex.quote(each) for each in await self._desk.complete(self._caller, before)]
        last = before.rpartition(" ")[2]
        common = _beginning(found)
        more = common[len(last) :] if common.startswith(last) else ""
        if len(found) == 1:
            more += " "
        if len(found) > 1 and not more:
            self._say("")
            self._say("  ".join(plain(each) for each in found[:MOST_SHOWN]) + (" …" if len(found) > MOST_SHOWN else ""))
        for sign in more.encode("utf-8"):
            self.lineBuffer.insert(self.lineBufferIndex, bytes((sign,)))
            self.lineBufferIndex += 1

    # Out.

    def _say(self, text: str) -> None:
        self.terminal.write(text.encode("utf-8") + b"\n")

    def addOutput(self, data: bytes | str, async_: bool = False) -> None:
        """What Python prints."""
        written = data.encode("utf-8") if isinstance(data, str) else data
        self._unended = not written.endswith(b"\n")
        self.terminal.write(written)

    def _prompt(self) -> None:
        # Whatever was written ended with a line, or this is the line that is being completed.
        self.terminal.write(b"\r")
        self.terminal.eraseToLineEnd()
        self.drawInputLine()
        if self.lineBufferIndex < len(self.lineBuffer):
            self.terminal.cursorBackward(len(self.lineBuffer) - self.lineBufferIndex)


def _beginning(names: list[str]) -> str:
    """What all *names* begin with."""
    if not names:
        return ""
    first, last = min(names), max(names)
    return next((first[:index] for index, sign in enumerate(first) if sign != last[index : index + 1]), first)

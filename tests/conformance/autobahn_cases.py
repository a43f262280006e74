"""
The cases of the Autobahn|Testsuite against the gateway's WebSocket edge: ``python -m tests.conformance.autobahn_cases FOLDER``.

The suite is written for Python 2; FOLDER is its unpacked source distribution. Its cases are read as they are, by
``lib2to3`` (Python 3.12 at most), with text as bytes in latin-1, which is what a Python 2 string was. What drives
them is Autobahn's own client, as in the suite; the edge echoes. Compressed messages are sent 30 times, not 1,000.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import re
import sys
import types
from collections import Counter
from lib2to3.refactor import RefactoringTool
from pathlib import Path
from typing import Any

from autobahn.twisted import websocket as autobahn
from autobahn.websocket import utf8validator
from autobahn.websocket.protocol import WebSocketProtocol
from tests.web.harness import Recorder
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.task import react

from gateway.config.realtime_sections import WebSocket
from gateway.config.sections import Limits, Listener
from gateway.dialects.centrifuge_json import CentrifugeJson
from gateway.dialects.centrifuge_protobuf import CentrifugeProtobuf
from gateway.node.plan import ServedRoute
from gateway.ports.clients import Opening
from gateway.ports.http import Exchange
from gateway.web.factory import ChannelFactory
from gateway.web.listen import listen
from gateway.ws.closing import ClosingWatch
from gateway.ws.edge import WebSocketEdge
from gateway.ws.framing import CompressedForm, FrameForm

reactor: Any = installed

_Utf8Validator: Any = utf8validator.Utf8Validator
AT_ONCE = 8
MESSAGES = 30
LARGEST = 17 * 1024 * 1024
FIXERS = [
    f"lib2to3.fixes.fix_{name}" for name in ("print", "xrange", "except", "dict", "has_key", "long", "raise", "map")
]
GOOD = ("OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED")

ALLOWED: dict[str, str] = {}
"""Cases that may fail, and why."""


class _Loader(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """
    Imports the suite's modules from its folder of cases.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tool = RefactoringTool(FIXERS)

    def find_spec(self, name: str, _path: Any, _target: Any = None) -> Any:
        """Find ``case1_1_1`` and the like."""
        if "." not in name and (self._folder / f"{name}.py").exists():
            return importlib.machinery.ModuleSpec(name, self)
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        """Run it."""
        self.run(self._folder / f"{module.__name__}.py", module.__dict__)

    def run(self, path: Path, names: dict[str, Any]) -> None:
        """Run the module at *path*."""
        text = path.read_bytes().decode("latin-1").replace("\r\n", "\n")
        text = re.sub(r"^#.*coding.*$", "#", text, flags=re.MULTILINE)
        text = text.replace("(object, Case, )", "(Case, )").replace(" / ", " // ")
        text = re.sub(r"\b(?:(request|accept)N|n)oContextTakeover\b", _snake, text)
        text = re.sub(r"\b(?:request|accept)MaxWindowBits\b", _snake, text)
        text = re.sub(r"^.*\bimplements\b.*$", "", text, flags=re.MULTILINE)
        text = text.replace(".tostring()", ".tobytes().decode('latin-1')")
        # What u"..." and "...".encode("utf8") made in Python 2 was a string of bytes.
        if path.stem != "case12_x_x":  # It hashes bytes.
            text = re.sub(
                r"\.encode\((['\"])utf-?8\1\)", ".encode('utf8').decode('latin-1')", text, flags=re.IGNORECASE
            )
        text = text.split("if __name__ ==")[0].replace("Utf8Validator()", "_Validator()") + "\n"
        names["_Validator"] = _Validator
        exec(compile(str(self._tool.refactor_string(text, str(path))), str(path), "exec"), names)


class _Validator(_Utf8Validator):  # type: ignore[misc]  # not typed
    """
    Takes bytes as Python 2 had them.
    """

    def validate(self, data: Any) -> Any:
        return super().validate(_bytes(data))


def _snake(match: re.Match[str]) -> str:
    """An option as Autobahn names it today."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", match[0]).lower()


def _text_to_hex(data: Any) -> str:
    return (data.encode("latin-1") if isinstance(data, str) else data).hex()


def cases_of(folder: Path) -> list[Any]:
    """
    Load the classes of all cases.
    """
    package = folder / "autobahntestsuite"
    resources: Any = types.ModuleType("pkg_resources")
    resources.resource_filename = lambda _package, name: str(package / name)
    hexadecimal: Any = types.ModuleType("binascii")
    hexadecimal.b2a_hex = hexadecimal.hexlify = _text_to_hex
    sys.modules |= {"pkg_resources": resources, "binascii": hexadecimal}
    loader = _Loader(package / "case")
    sys.meta_path.insert(0, loader)
    names: dict[str, Any] = {"__name__": "cases"}
    loader.run(package / "case" / "__init__.py", names)
    names["Case"].compare = lambda _self, one, other: one == other
    return list(names["Cases"])


def id_of(case: Any) -> str:
    """
    Name a case as the suite does: ``1.1.1``.
    """
    return str(case.__name__).removeprefix("Case").replace("_", ".")


def _bytes(value: Any) -> Any:
    return value.encode("latin-1") if isinstance(value, str) else value


_Client: Any = autobahn.WebSocketClientProtocol


class Fuzzer(_Client):  # type: ignore[misc]  # not typed
    """
    Autobahn's client with the orders that cases give.
    """

    createWirelog = False
    connectionWasOpen = False

    def __init__(self, case: Any) -> None:
        super().__init__()
        self.done: Deferred[Any] = Deferred()
        self.txFrameStats: Counter[int] = Counter()
        self.rxFrameStats: Counter[int] = Counter()
        self.runCase: Any = None
        self._case = case

    def connectionMade(self) -> None:
        self.runCase = self._case(self)
        super().connectionMade()

    def connectionLost(self, reason: Any = None) -> None:
        super().connectionLost(reason)
        if not self.done.called:
            self.runCase.onConnectionLost(self.failedByMe)
            self.done.callback(self.runCase)

    def onOpen(self) -> None:
        self.connectionWasOpen = True
        self.runCase.onOpen()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        raw = hasattr(self.runCase, "testData")
        self.runCase.onMessage(payload if raw else payload.decode("latin-1"), isBinary)

    def onPong(self, payload: bytes) -> None:
        self.runCase.onPong(payload.decode("latin-1"))

    def onPing(self, payload: bytes) -> None:
        self.runCase.onPing(payload.decode("latin-1"))

    def sendFrame(self, opcode: int, payload: Any = b"", **more: Any) -> None:
        self.txFrameStats[opcode] += 1
        super().sendFrame(opcode, _bytes(payload), **more)

    def sendMessage(self, payload: Any, isBinary: bool = False, **more: Any) -> None:
        super().sendMessage(_bytes(payload), isBinary, **more)

    def sendMessageFrameData(self, payload: Any, sync: bool = False) -> Any:
        return super().sendMessageFrameData(_bytes(payload), sync)

    def sendCloseFrame(self, code: Any = None, reasonUtf8: Any = None, isReply: bool = False) -> None:
        super().sendCloseFrame(code, _bytes(reasonUtf8), isReply)

    def enableWirelog(self, _enable: bool) -> None:
        """No log is kept."""

    def continueLater(self, delay: float, work: Any, _tag: Any = None) -> None:
        """Go on after a while, if the connection is still there."""
        reactor.callLater(delay, lambda: work() if self.state != WebSocketProtocol.STATE_CLOSED else None)

    def killAfter(self, delay: float) -> None:
        """Fail the connection after a while."""
        self.continueLater(delay, self._fail_connection)

    def closeAfter(self, delay: float) -> None:
        """Close the connection after a while."""
        self.continueLater(delay, self.sendClose)


class Echo:
    """
    The node's side: sends back what comes.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def received(self, frame: bytes) -> None:
        """Send it back."""
        self._transport.write(self._transport.form.frame(frame))

    def blocked(self) -> None:
        """The client is slower: what is written waits, in these tests without a bound."""

    def drained(self) -> None:
        """It has caught up."""

    def lost(self, code: int, reason: str, *, clean: bool) -> None:
        """It is gone."""


def _edge(dialect: Any) -> WebSocketEdge:
    section = WebSocket(compression=True, max_message_bytes=LARGEST, close_timeout_s=2.0)

    def never(*given: Any) -> None:
        raise AssertionError(given)

    return WebSocketEdge(
        reactor,
        section,
        forms={"echo": FrameForm(dialect)},
        compressed={"echo": CompressedForm(dialect)},
        open_=lambda _exchange, _token: Opening("127.0.0.1", section),
        accept=lambda transport, _opening: Echo(transport),
        watch=ClosingWatch(reactor),
        lean=True,
        refuse=never,
        crashed=never,
    )


def _is_binary(case: Any) -> bool:
    name = id_of(case)
    return name.startswith(("1.2.", "9.2.", "9.4.", "9.6.", "9.8.")) or bool(
        getattr(case, "TESTDATA", {}).get("binary")
    )


async def _run(port: int, case: Any) -> Any:
    protocol = Fuzzer(case)
    path = "binary" if _is_binary(case) else "text"
    factory: Any = autobahn.WebSocketClientFactory(f"ws://127.0.0.1:{port}/{path}", reactor=reactor)
    factory.setProtocolOptions(failByDrop=False, openHandshakeTimeout=30, serverConnectionDropTimeout=5)
    factory.protocol = lambda: protocol
    await TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(factory)
    return await protocol.done


async def _all(_reactor: Any, folder: Path, wanted: str) -> None:
    edges = {b"/text": _edge(CentrifugeJson()), b"/binary": _edge(CentrifugeProtobuf())}

    def answer(exchange: Exchange) -> None:
        exchange.route = ServedRoute("conformance", edges[exchange.head.target])
        edges[exchange.head.target].handle(exchange)

    site = ChannelFactory(Recorder(answer), Limits(connections=1000), reactor)
    listening = await listen(reactor, [Listener("tcp:0:interface=127.0.0.1")], site)
    host: Any = listening.ports[0].getHost()
    port = host.port
    gate = DeferredSemaphore(AT_ONCE)
    results: dict[str, tuple[str, str, str]] = {}

    async def one(case: Any) -> None:
        if hasattr(case, "COUNT"):
            case.COUNT = min(case.COUNT, MESSAGES)
        ran = await _run(port, case)
        results[id_of(case)] = (ran.behavior, ran.behaviorClose, f"{ran.result} {ran.resultClose}")

    cases = [case for case in cases_of(folder) if re.match(wanted, id_of(case))]
    await gatherResults([gate.run(Deferred.fromCoroutine, one(case)) for case in cases])
    await listening.stop()
    site.stop()
    _report(results)


def _report(results: dict[str, tuple[str, str, str]]) -> None:
    counted = Counter(f"{behavior} / close {closed}" for behavior, closed, _ in results.values())
    print(json.dumps({"cases": len(results), "outcomes": counted}, indent=1))
    failed = {
        name: result
        for name, result in results.items()
        if (result[0] not in GOOD or result[1] not in (*GOOD, "UNCLEAN")) and name not in ALLOWED
    }
    for name, result in sorted(failed.items()):
        print(name, *result)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    react(lambda given: Deferred.fromCoroutine(_all(given, Path(sys.argv[1]), sys.argv[2] if sys.argv[2:] else "")))

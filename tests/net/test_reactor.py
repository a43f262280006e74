"""
The reactor in a process of its own: its clock, its reads, its errors.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src"


def run(program: str) -> str:
    """Run *program* on the gateway's reactor; return what it printed."""
    head = f"import sys; sys.path.insert(0, {str(SOURCE)!r})\nfrom gateway.net.reactor import install\ninstall()\n"
    done = subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_clock_steps_move_no_timer() -> None:
    """
    A step of the wall clock, forward or back, neither fires a timer nor holds one back.
    """
    out = run("""
        import time
        from twisted.internet import reactor
        real = time.time
        assert abs(reactor.seconds() - time.monotonic()) < 1
        fired = []
        reactor.callLater(300, fired.append, "early")
        reactor.callLater(0.2, fired.append, "due")
        offset = [86400.0]
        time.time = lambda: real() + offset[0]
        reactor.callLater(0.1, offset.__setitem__, 0, -86400.0)
        reactor.callLater(0.5, reactor.stop)
        reactor.run()
        print(fired)
    """)
    assert out == "['due']\n"


def test_serves_connections_threads_and_processes() -> None:
    """
    Connections, large writes, threads, child processes and half-closing work as on the stock reactor.
    """
    out = run("""
        import sys
        from twisted.internet import reactor, protocol, threads, utils, endpoints, defer
        from gateway.net.transports import DirectReactor

        class Echo(protocol.Protocol):
            def dataReceived(self, data):
                self.transport.write(data)

        class Client(protocol.Protocol):
            def connectionMade(self):
                self.got = 0
                self.done = defer.Deferred()
                self.transport.write(b"x" * 5_000_000)
            def dataReceived(self, data):
                self.got += len(data)
                if self.got == 5_000_000:
                    self.done.callback(None)

        async def main():
            direct = DirectReactor(reactor)
            port = await endpoints.serverFromString(direct, "tcp:0:interface=127.0.0.1").listen(
                protocol.Factory.forProtocol(Echo))
            client = await endpoints.clientFromString(direct, f"tcp:127.0.0.1:{port.getHost().port}").connect(
                protocol.Factory.forProtocol(Client))
            await client.done
            client.transport.loseConnection()
            await port.stopListening()
            print(client.got, await threads.deferToThread(lambda: 7))
            print(await utils.getProcessOutput(sys.executable, ["-c", "print(8)"]))
            reactor.stop()

        reactor.callWhenRunning(lambda: defer.Deferred.fromCoroutine(main()).addErrback(lambda f: (f.printTraceback(), reactor.stop())))
        reactor.run()
    """)
    assert out == "5000000 7\nb'8\\n'\n"


def test_protocol_that_raises_loses_its_connection_alone() -> None:
    """
    An exception in ``dataReceived`` is logged and ends that connection; the reactor goes on.
    """
    out = run("""
        from twisted.internet import reactor, protocol, endpoints, defer
        from twisted.python import log
        failures = []
        log.addObserver(lambda event: event["isError"] and failures.append(event["failure"].type))

        class Bad(protocol.Protocol):
            def dataReceived(self, data):
                raise ZeroDivisionError
            def connectionLost(self, reason):
                print("lost", reason.type.__name__)

        class Client(protocol.Protocol):
            def connectionLost(self, reason):
                print("client", [each.__name__ for each in failures])
                reactor.callLater(0.05, reactor.stop)

        async def main():
            port = await endpoints.serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(
                protocol.Factory.forProtocol(Bad))
            client = await endpoints.clientFromString(reactor, f"tcp:127.0.0.1:{port.getHost().port}").connect(
                protocol.Factory.forProtocol(Client))
            client.transport.write(b"x")

        reactor.callWhenRunning(lambda: defer.ensureDeferred(main()))
        reactor.run()
    """)
    assert out == "lost ZeroDivisionError\nclient ['ZeroDivisionError']\n"

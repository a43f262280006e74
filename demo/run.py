"""
``make demo``: the gateway and the backends behind it, as processes of their own, until Ctrl-C.

Ports come from the command line, else from the environment by the names in ``PORTS``, else they are those; 0 takes any
that is free. Exit code 0 after Ctrl-C or TERM; 1 when something could not start or ended by itself.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from demo.children import Children
from demo.ports import free_port, taken
from demo.protos import compile_protos

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
CONFIG = "demo/gateway.toml"
START_S = 30.0
PORTS = (
    ("GATEWAY_PORT", 4000),
    ("ADMIN_PORT", 9100),
    ("API_PORT", 10000),
    ("PLAYERS_PORT", 7001),
    ("GAME_PORT", 7100),
    ("EVENTS_PORT", 7200),
    ("SESSIONS_PORT", 7201),
)

# Whatever proxy the environment names is not for this machine's own ports.
_open = build_opener(ProxyHandler({})).open


class CannotStart(Exception):
    """
    The demo cannot be shown; its text is one line for the user.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the demo; return the exit code.
    """
    asked = options("demo.run", "The gateway and its demo backends, until Ctrl-C.", PORTS, arguments)
    signals()
    children = Children(ROOT)
    try:
        environ = {name: str(settle(name, getattr(asked, name.lower()))) for name, _ in PORTS}
        start(children, asked.data, environ)
        print(invitation(environ), flush=True)
        ended = children.wait()
        raise CannotStart(f"{ended} ended by itself; what it said last stands {children.said(ended)}")
    except CannotStart as no:
        print(f"demo: {no}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: stopping", flush=True)
        return 0
    finally:
        children.stop()
        print("demo: stopped", flush=True)


def options(
    program: str, description: str, ports: Sequence[tuple[str, int]], arguments: Sequence[str] | None
) -> argparse.Namespace:
    """
    Read the command line; each of *ports* has an option of its name.
    """
    parser = argparse.ArgumentParser(prog=program, description=description)
    for name, default in ports:
        option = f"--{name.lower().replace('_', '-')}"
        parser.add_argument(option, type=int, default=int(os.environ.get(name) or default), help="0: any free one")
    parser.add_argument("--data", type=Path, default=ROOT / ".run", help="where the backend keeps its database")
    return parser.parse_args(arguments)


def signals() -> None:
    """
    Have TERM and Ctrl-C raise ``KeyboardInterrupt``.
    """

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def settle(name: str, port: int, command: str = "make demo") -> int:
    """
    Return *port*, or a free one for 0.

    Raises:
        CannotStart: somebody has it.
    """
    if not port:
        return free_port()
    why = taken(port)
    if why:
        raise CannotStart(f"port {port} of 127.0.0.1 cannot be used: {why}. With another one: {name}=… {command}")
    return port


def start(children: Children, data: Path, environ: dict[str, str]) -> None:
    """
    Start the backends, then the gateway; return once all answer.

    Raises:
        CannotStart: one of them did not.
    """
    backends(children, data, environ, [f"127.0.0.1:{environ['API_PORT']}"])
    # No pid file: several demos can run in one folder.
    environ = environ | {"SPOOL": str(data.resolve() / f"spool-{environ['GATEWAY_PORT']}")}
    gateway = [str(BIN / "twistd"), "-n", "--pidfile=", "gateway", "--config", CONFIG]
    children.start("gateway", gateway, environ)
    answers(children, f"http://127.0.0.1:{environ['GATEWAY_PORT']}/ready")


def backends(children: Children, data: Path, environ: dict[str, str], gateways: Sequence[str]) -> None:
    """
    Start players, game and the Event Service; the game publishes through one of *gateways*, by the ports of their server APIs.

    Raises:
        CannotStart: one of them did not answer.
    """
    data.mkdir(parents=True, exist_ok=True)
    database = data / f"players-{environ['PLAYERS_PORT']}.sqlite3"
    players = [sys.executable, "-m", "demo.players", "--port", environ["PLAYERS_PORT"], "--db", str(database)]
    children.start("players", players, environ)
    answers(children, f"http://127.0.0.1:{environ['PLAYERS_PORT']}/health")
    compile_protos()
    game = [sys.executable, "-m", "demo.game", "--port", environ["GAME_PORT"], "--gateway", ",".join(gateways)]
    children.start("game", game, environ)
    listens(children, int(environ["GAME_PORT"]))
    database = data / f"events-{environ['EVENTS_PORT']}.sqlite3"
    events = [sys.executable, "-m", "demo.events", "--port", environ["EVENTS_PORT"]]
    children.start("events", [*events, "--page-port", environ["SESSIONS_PORT"], "--db", str(database)], {})
    answers(children, f"http://127.0.0.1:{environ['SESSIONS_PORT']}/health")


def listens(children: Children, port: int) -> None:
    """
    Wait until somebody listens on *port*.
    """
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        ended = children.ended()
        if ended:
            raise CannotStart(f"{ended} did not start; it says why {children.said(ended)}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=2.0).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise CannotStart(f"nobody listens on port {port} after {START_S:.0f} s")


def answers(children: Children, url: str) -> None:
    """
    Wait until *url* answers 200.
    """
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        ended = children.ended()
        if ended:
            raise CannotStart(f"{ended} did not start; it says why {children.said(ended)}")
        try:
            with _open(url, timeout=2.0) as answer:
                answer.read()
                return
        except (URLError, OSError):
            time.sleep(0.05)
    raise CannotStart(f"{url} did not answer within {START_S:.0f} s")


def invitation(environ: dict[str, str]) -> str:
    """
    Say what can be tried.
    """
    made = subprocess.run(
        [str(BIN / "gateway"), "token", CONFIG, "--sub", "alice", "--claim", 'roles=["player"]', "--ttl", "12h"],
        cwd=ROOT,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise CannotStart(made.stderr.strip())
    clients = f"http://127.0.0.1:{environ['GATEWAY_PORT']}"
    bearer = shlex.quote(f"Authorization: Bearer {made.stdout.strip()}")
    return f"""
The demo runs.

  {clients}          the gateway, for clients: open it in two windows and play
  http://127.0.0.1:{environ["ADMIN_PORT"]}/live     what all of it does, for operators; the key is demo-only-admin-key
  http://127.0.0.1:{environ["ADMIN_PORT"]}/metrics  the same for Prometheus
  http://127.0.0.1:{environ["SESSIONS_PORT"]}          who plays, for how long, and who comes back: the Event Service's page
  http://127.0.0.1:{environ["PLAYERS_PORT"]}          a backend; it says below what it was asked

In another terminal, as alice:

  curl -i -H {bearer} {clients}/api/players/alice

Then the same without the token (401, and the backend is not asked), /api/status (open to all),
/api/players/export?bytes=1000000000 (streamed), /api/players/slow?seconds=9 (504 after 5 s),
or a PATCH of '{{"motto": "all in"}}' to /api/players/bob (403: alice is not bob).
A token for somebody else: .venv/bin/gateway token {CONFIG} --sub bob

Ctrl-C stops it all.
"""


if __name__ == "__main__":
    sys.exit(main())

"""
``make demo-cluster``: two instances of the gateway behind haproxy, with Redis between them, until Ctrl-C.

Everything is a process of its own. An instance that is killed is started again after a while; until then the
other one has all its clients. Ports come from the command line, else from the environment by the names in
``PORTS``, else they are those; 0 takes any that is free. Exit code 0 after Ctrl-C or TERM; 1 when something
could not start, or something other than an instance ended by itself.
"""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from demo.children import Children
from demo.run import BIN, CONFIG, ROOT, CannotStart, answers, backends, listens, options, settle, signals

__all__ = ["main"]

PORTS = (
    ("GATEWAY_PORT", 4000),
    ("BALANCER_PORT", 8404),
    ("REDIS_PORT", 6390),
    ("PLAYERS_PORT", 7001),
    ("GAME_PORT", 7100),
    ("EVENTS_PORT", 7200),
    ("SESSIONS_PORT", 7201),
    ("GATEWAY1_PORT", 4001),
    ("GATEWAY2_PORT", 4002),
    ("ADMIN1_PORT", 9101),
    ("ADMIN2_PORT", 9102),
    ("API1_PORT", 10001),
    ("API2_PORT", 10002),
)
INSTANCES = ("1", "2")
PROGRAMS = ("redis-server", "haproxy")

AGAIN_S = 10.0
"""An instance that ended is started again after so long: time to see that nobody needs it."""

SETTINGS = {
    "BALANCER": "127.0.0.1",
    "MIN_DRAIN": "1500ms",  # haproxy.cfg: noticed after 1 s
    "BEAT": "1s",
    "LEASE": "3s",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the demo; return the exit code.
    """
    asked = options("demo.cluster", "Two gateways behind haproxy, with Redis, until Ctrl-C.", PORTS, arguments)
    signals()
    logs = asked.data / "cluster"
    logs.mkdir(parents=True, exist_ok=True)
    for old in logs.glob("*.log"):
        old.unlink()
    children = Children(ROOT, logs)
    try:
        environ = {name: str(settle(name, getattr(asked, name.lower()), "make demo-cluster")) for name, _ in PORTS}
        start(children, asked.data, environ)
        print(invitation(children, environ, logs), flush=True)
        watch(children, environ)
    except CannotStart as no:
        print(f"demo: {no}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: stopping", flush=True)
        return 0
    finally:
        children.stop()
        print("demo: stopped", flush=True)


def start(children: Children, data: Path, environ: dict[str, str]) -> None:
    """
    Start Redis, the backends, the instances and haproxy; return once all answer.

    Raises:
        CannotStart: one of them did not.
    """
    missing = [program for program in PROGRAMS if _found(program) is None]
    if missing:
        raise CannotStart(f"missing: {' '.join(missing)}. On Debian, as root: apt-get install {' '.join(missing)}")
    redis = [str(_found("redis-server")), "--port", environ["REDIS_PORT"], "--bind", "127.0.0.1"]
    # In memory alone: what is played here may be forgotten.
    redis += ["--save", "", "--appendonly", "no", "--dir", str(data), "--loglevel", "warning"]
    children.start("redis", redis, {})
    listens(children, int(environ["REDIS_PORT"]))
    backends(children, data, environ, [f"127.0.0.1:{environ[f'API{number}_PORT']}" for number in INSTANCES])
    for number in INSTANCES:
        instance(children, number, environ)
    for number in INSTANCES:
        answers(children, f"http://127.0.0.1:{environ[f'GATEWAY{number}_PORT']}/ready")
    children.start(
        "haproxy",
        [str(_found("haproxy")), "-db", "-f", "deploy/haproxy.cfg"],
        {
            "HAPROXY_CLIENTS": f"127.0.0.1:{environ['GATEWAY_PORT']}",
            "HAPROXY_STATS": f"127.0.0.1:{environ['BALANCER_PORT']}",
            **{f"GATEWAY_{number}": f"127.0.0.1:{environ[f'GATEWAY{number}_PORT']}" for number in INSTANCES},
        },
    )
    answers(children, f"http://127.0.0.1:{environ['GATEWAY_PORT']}/ready")


def instance(children: Children, number: str, environ: dict[str, str]) -> None:
    """
    Start one instance of the gateway.
    """
    its = {name: environ[f"{name.replace('_', f'{number}_')}"] for name in ("GATEWAY_PORT", "ADMIN_PORT", "API_PORT")}
    store = {"STORE": f"redis://127.0.0.1:{environ['REDIS_PORT']}"}
    command = [str(BIN / "twistd"), "-n", "--pidfile=", "gateway", "--config", CONFIG]
    children.start(f"gateway-{number}", command, environ | SETTINGS | store | its)


def watch(children: Children, environ: dict[str, str]) -> NoReturn:
    """
    Start instances again that have ended, for ever.

    Raises:
        CannotStart: something else has ended.
    """
    due: dict[str, float] = {}
    while True:
        ended = children.ended()
        if ended:
            number = ended.removeprefix("gateway-")
            if number not in INSTANCES:
                raise CannotStart(f"{ended} ended by itself; what it said last stands {children.said(ended)}")
            code = children.bury(ended)
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
            print(f"demo: {ended} {how}; it is started again in {AGAIN_S:.0f} s", flush=True)
            due[number] = time.monotonic() + AGAIN_S
        for number in [number for number, at in due.items() if at <= time.monotonic()]:
            del due[number]
            instance(children, number, environ)
            print(f"demo: gateway-{number} is process {children.pid(f'gateway-{number}')}", flush=True)
        time.sleep(0.1)


def invitation(children: Children, environ: dict[str, str], logs: Path) -> str:
    """
    Say what can be tried.
    """
    rows = "\n".join(
        f"  gateway-{number}  process {children.pid(f'gateway-{number}'):<7}  "
        f"http://127.0.0.1:{environ[f'GATEWAY{number}_PORT']}  metrics http://127.0.0.1:{environ[f'ADMIN{number}_PORT']}/metrics"
        for number in INSTANCES
    )
    first = children.pid("gateway-1")
    return f"""
The cluster runs.

  http://127.0.0.1:{environ["GATEWAY_PORT"]}   the game: open it in two windows and play; haproxy gives each window an instance
  http://127.0.0.1:{environ["SESSIONS_PORT"]}   who plays, for how long, and who comes back: the Event Service's page
  http://127.0.0.1:{environ["BALANCER_PORT"]}   haproxy's view of the instances
{rows}
  redis-cli -p {environ["REDIS_PORT"]} monitor    what they keep in Redis
  tail -f {logs}/*.log    what they all say

In another terminal, while two play:

  kill -9 {first}   gateway-1 dies: its windows come back to the other instance within a second and miss nothing
  kill {first}      it drains: its windows are asked to go elsewhere, and nobody is seen to leave

Whichever ended is started again after {AGAIN_S:.0f} s. Ctrl-C stops it all.
"""


def _found(program: str) -> str | None:
    # haproxy is where only root looks.
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")


if __name__ == "__main__":
    sys.exit(main())

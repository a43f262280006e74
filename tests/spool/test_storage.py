"""
When there is a spool, and what is said where there is none.
"""

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from structlog.testing import CapturingLogger

from gateway.config.load import load
from gateway.storage import Storage

CONFIG = """
[listen]
clients = ["tcp:4000"]

[[websocket]]
path = "/ws"

[[auth.issuer]]
issuer     = "https://id.example"
audience   = "gateway"
algorithms = ["HS256"]
secret     = "a-secret-that-only-these-tests-know"

"""
TOLD = """
[upstream.event]
grpc = ["127.0.0.1:7200"]

[events]
upstream = "event"
call = "event.v1.EventService/PublishEvents"
"""


async def started(folder: Path, body: str) -> tuple[Storage, CapturingLogger]:
    """
    The stores of a configuration, and what was logged when they were started.
    """
    from twisted.internet import reactor  # pytest-twisted has installed one.

    path = folder / "gateway.toml"
    path.write_text(CONFIG + body)
    log = CapturingLogger()

    def failed(name: str, failure: Any) -> None:
        raise AssertionError(f"{name}: {failure}")

    storage = Storage(reactor, load(path, {}), wall=lambda: 1.8e9, log=log, failed=failed)
    await storage.start()
    return storage, log


@pytest.mark.parametrize(("body", "said"), [("", []), (TOLD, ["spool.none"]), (f'{TOLD}spool = "spool"', [])])
@pytest_twisted.ensureDeferred
async def test_what_a_crash_loses_is_said_once(tmp_path: Path, body: str, said: list[str]) -> None:
    """
    Where sessions are told of and kept in memory alone, the start says so; with a spool, or nobody to tell, it does not.
    """
    storage, log = await started(tmp_path, body)
    await storage.stop()
    assert [call.args[0] for call in log.calls] == said
    assert (storage.spool is not None) == ("spool" in body)
    assert (tmp_path / "spool" / "sessions.sqlite3").exists() == ("spool" in body)


@pytest_twisted.ensureDeferred
async def test_a_spool_that_is_no_folder(tmp_path: Path) -> None:
    """
    A file where the folder should be is a fault of the configuration.
    """
    (tmp_path / "spool").write_text("")
    with pytest.raises(Exception, match=r"events\.spool: .*/spool is no folder"):
        await started(tmp_path, f'{TOLD}spool = "spool"')

"""
Tells the gateway what has changed: each table to those who watch it, and a line of it to the lobby.

From a thread of its own, because a game must not wait for anybody who watches. Of what could not be
told yet only the newest is kept: a table's version says which state is newer, and the gateway leaves
out what is older than what it has. So an instance that does not answer is no trouble: the same is told
to the next one, and what both heard is published once.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict

from gateway.protos.gateway.v1 import api_pb2, api_pb2_grpc

__all__ = ["Publisher"]

TIMEOUT_S = 2.0
AGAIN_S = 0.5
_NOT_NOW = 100
"""An error that may be over when the same is tried again: Redis is away, say."""
_OPTIONS = (("grpc.max_reconnect_backoff_ms", 1000),)
_LOBBY = ("tableId", "name", "phase", "red", "yellow", "version")


class Publisher:
    """
    A thread that publishes tables through the gateway's server API.

    Args:
        addresses: Of the server API over gRPC, of each instance; any of them will do.
        key: One with the scope ``publish``.
    """

    def __init__(self, addresses: Sequence[str], key: str, log: Callable[[str], None]) -> None:
        self._channels = [grpc.insecure_channel(address, _OPTIONS) for address in addresses]
        stub: Any = api_pb2_grpc.GatewayApiStub  # generated without types
        self._apis = deque(stub(channel) for channel in self._channels)
        self._metadata = (("x-api-key", key),)
        self._log = log
        # Versions start over with this process; a new epoch says that they do.
        self._epoch = str(time.time_ns())
        self._waiting: dict[str, tuple[dict[str, Any], int]] = {}
        self._came = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    def start(self) -> None:
        """
        Begin.
        """
        self._thread.start()

    def stop(self) -> None:
        """
        End; what waits is not told any more.
        """
        with self._came:
            self._stopping = True
            self._came.notify()
        self._thread.join(TIMEOUT_S)
        for channel in self._channels:
            channel.close()

    def tell(self, message: Any, lobby_version: int) -> None:
        """
        Have *message*, a table, told; called in any thread, returns at once.
        """
        table = MessageToDict(message)
        with self._came:
            self._waiting[message.table_id] = (table, lobby_version)
            self._came.notify()

    def _run(self) -> None:
        while True:
            with self._came:
                while not self._waiting and not self._stopping:
                    self._came.wait()
                if self._stopping:
                    return
                tables, self._waiting = self._waiting, {}
            request = api_pb2.BatchRequest()
            for table, lobby_version in tables.values():
                self._add(request, f"table:{table['tableId']}", table, int(table["version"]))
                self._add(request, "lobby", {name: table[name] for name in _LOBBY if name in table}, lobby_version)
            if not self._told(request):
                self._keep(tables)
                time.sleep(AGAIN_S)

    def _told(self, request: Any) -> bool:
        """Tell the first instance that answers; whether one did, and could do it."""
        for _ in range(len(self._apis)):
            try:
                reply = self._apis[0].Batch(request, metadata=self._metadata, timeout=TIMEOUT_S)
            except grpc.RpcError as error:
                self._log(f"game: a gateway was not told: {error.code().name}; trying again")
                self._apis.rotate(-1)
                continue
            refused = [each.error for each in reply.result.replies if each.HasField("error")]
            for why in refused:
                self._log(f"game: the gateway refused: {why.message}")
            return all(why.code != _NOT_NOW for why in refused)
        return False

    def _add(self, request: Any, channel: str, data: dict[str, Any], version: int) -> None:
        publish = request.commands.add().publish
        publish.channel = channel
        publish.data = json.dumps(data).encode()
        publish.version = version
        publish.version_epoch = self._epoch

    def _keep(self, tables: dict[str, tuple[dict[str, Any], int]]) -> None:
        with self._came:
            for name, told in tables.items():
                self._waiting.setdefault(name, told)

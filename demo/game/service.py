"""
The game's gRPC service: typed requests in, tables out, refusals as statuses with details.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from demo.game.tables import DRAWN, PLAYING, SIGNS, Refused, Table, Tables
from demo.protos import compile_protos

compile_protos()

import game_pb2  # noqa: E402
import game_pb2_grpc  # noqa: E402

__all__ = ["GameService", "game_pb2", "game_pb2_grpc", "shown"]

DOMAIN = "demo.game.v1"
LOOK_S = 0.5


def shown(table: Table) -> Any:
    """
    Make the message of a table.
    """
    message = game_pb2.Table(
        table_id=table.id,
        name=table.name,
        phase=table.phase,
        winner=table.winner,
        rows=table.board.rows(),
        version=table.version,
        moves=[
            game_pb2.Move(seat=SIGNS["RY"[number % 2]], column=column)
            for number, column in enumerate(table.board.moves)
        ],
    )
    for seat, name in ((1, "red"), (2, "yellow")):
        if seat in table.seats:
            setattr(message, name, table.seats[seat])
    if table.phase == PLAYING:
        message.turn = SIGNS[table.board.turn]
    message.created_at.FromMicroseconds(int(table.created_at * 1e6))
    message.changed_at.FromMicroseconds(int(table.changed_at * 1e6))
    return message


class GameService(game_pb2_grpc.GameServiceServicer):  # type: ignore[misc]  # generated without types
    """
    The service on some tables.

    Args:
        log: Called with one line for each call.
    """

    def __init__(self, tables: Tables, log: Callable[[str], None]) -> None:
        self._tables = tables
        self._log = log

    def CreateTable(self, request: Any, context: Any) -> Any:
        """Open a table."""
        user = self._user("CreateTable", request, context)
        name = request.table.name
        return self._once("CreateTable", user, request, context, lambda: shown(self._tables.create(name)))

    def ListTables(self, request: Any, context: Any) -> Any:
        """List tables, a page at a time."""
        self._user("ListTables", request, context)
        size = request.page_size or 20
        if not 1 <= size <= 100:
            self._refuse(context, Refused("INVALID_ARGUMENT", "BAD_PAGE", "page_size is 1 to 100", "page_size"))
        tables = self._tables.newest()
        start = 0
        if request.page_token:
            known = [number for number, table in enumerate(tables) if table.id == request.page_token]
            if not known:
                refused = Refused("INVALID_ARGUMENT", "BAD_PAGE", "the page token is not known", "page_token")
                self._refuse(context, refused)
            start = known[0]
        wanted = set(request.phase)
        page = [table for table in tables[start:] if not wanted or table.phase in wanted]
        more = page[size].id if len(page) > size else ""
        return game_pb2.ListTablesResponse(
            tables=[shown(table) for table in page[:size]], next_page_token=more, version=self._tables.version
        )

    def GetTable(self, request: Any, context: Any) -> Any:
        """Show one table."""
        self._user("GetTable", request, context)
        return self._try(context, lambda: shown(self._tables.get(request.table_id)))

    def UpdateTable(self, request: Any, context: Any) -> Any:
        """Rename a table."""
        user = self._user("UpdateTable", request, context)
        paths = list(request.update_mask.paths)
        if paths != ["name"]:
            text = "only the name of a table can be changed"
            self._refuse(context, Refused("INVALID_ARGUMENT", "BAD_MASK", text, "update_mask"))
        return self._try(context, lambda: shown(self._tables.rename(request.table_id, user, request.table.name)))

    def Sit(self, request: Any, context: Any) -> Any:
        """Take a seat."""
        user = self._user("Sit", request, context)
        return self._once(
            "Sit", user, request, context, lambda: shown(self._tables.sit(request.table_id, user, request.seat))
        )

    def Leave(self, request: Any, context: Any) -> Any:
        """Give a seat up."""
        user = self._user("Leave", request, context)
        self._try(context, lambda: self._tables.leave(request.table_id, user))
        return Empty()

    def Drop(self, request: Any, context: Any) -> Any:
        """Play a disc."""
        user = self._user("Drop", request, context)
        return self._once(
            "Drop", user, request, context, lambda: shown(self._tables.drop(request.table_id, user, request.column))
        )

    def CanWatch(self, request: Any, context: Any) -> Any:
        """Say whether the caller may watch."""
        self._user("CanWatch", request, context)
        self._try(context, lambda: self._tables.get(request.table_id))
        return game_pb2.Permission(allowed=True)

    def MayChat(self, request: Any, context: Any) -> Any:
        """Say whether the caller may chat."""
        user = self._user("MayChat", request, context)
        table = self._try(context, lambda: self._tables.get(request.table_id))
        if user in table.seats.values():
            return game_pb2.Permission(allowed=True)
        return game_pb2.Permission(reason="only players of the table chat there")

    def WatchTable(self, request: Any, context: Any) -> Iterator[Any]:
        """Send the table now and after each change, until the game is over."""
        self._user("WatchTable", request, context)
        table = self._try(context, lambda: self._tables.get(request.table_id))
        seen = 0
        while context.is_active():
            with self._tables.lock:
                if table.version == seen:
                    self._tables.moved.wait(LOOK_S)
                    continue
                message, seen = shown(table), table.version
            yield message
            if message.phase in (game_pb2.WON, DRAWN):
                return

    # What all have in common.

    def _user(self, method: str, request: Any, context: Any) -> str:
        """Who calls: what the gateway says in the metadata; the field may only agree with it."""
        metadata = dict(context.invocation_metadata())
        user = str(metadata.get("x-user-id", ""))
        named = getattr(request, "user_id", "")
        self._log(f"game: {method} for {user or 'nobody'}")
        if not user:
            self._refuse(context, Refused("UNAUTHENTICATED", "NO_USER", "the gateway names no user"))
        if named and named != user:
            self._refuse(context, Refused("PERMISSION_DENIED", "OTHER_USER", "user_id is not the caller"))
        return user

    def _try(self, context: Any, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except Refused as refused:
            self._refuse(context, refused)

    def _once(self, method: str, user: str, request: Any, context: Any, make: Callable[[], Any]) -> Any:
        def serialized() -> bytes:
            data: bytes = make().SerializeToString()
            return data

        key = request.idempotency_key
        return self._try(context, lambda: game_pb2.Table.FromString(self._tables.once(method, user, key, serialized)))

    def _refuse(self, context: Any, refused: Refused) -> None:
        status = status_pb2.Status(code=code_pb2.Code.Value(refused.status), message=str(refused))
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason=refused.reason, domain=DOMAIN))
        if refused.field:
            violation = error_details_pb2.BadRequest.FieldViolation(field=refused.field, description=str(refused))
            status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
        context.abort_with_status(rpc_status.to_status(status))
        raise grpc.RpcError(str(refused))  # Never reached: abort raises. It tells type checkers so.

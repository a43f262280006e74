"""
Every gRPC upstream of an instance, and what each can be asked.

Descriptors come from a file, or from the backend itself by reflection: at start it must answer;
at a reload what it told before is kept, and it is asked again in the background.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from gateway.config.sections import Upstream
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.spans import Spans
from gateway.upstream.calls import GrpcUpstream
from gateway.upstream.cluster import Cluster
from gateway.upstream.descriptors import Schema, SchemaError, event_schema, load_schema, schema_from_files

__all__ = ["CallBackends"]

REFLECTION_S = 10.0


class _Known:
    __slots__ = ("files", "schema", "section", "upstream")

    def __init__(
        self, section: Upstream, upstream: GrpcUpstream, schema: Schema | None, files: Sequence[bytes] = ()
    ) -> None:
        self.section = section
        self.upstream = upstream
        self.schema = schema
        self.files = files


class CallBackends:
    """
    The gRPC upstreams by name.

    Args:
        random: Evenly from 0 to 1.
        changed: Told of ejections, checks and breakers, for the log.
    """

    def __init__(
        self,
        reactor: Any,
        random: Callable[[], float],
        metrics: Metrics,
        spans: Spans,
        changed: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self._reactor = reactor
        self._random = random
        self._metrics = metrics
        self._spans = spans
        self._changed = changed
        self._known: dict[str, _Known] = {}

    async def start(self, sections: Iterable[Upstream], told: Mapping[str, Sequence[bytes]] | None = None) -> None:
        """
        Open the channels and learn what the backends can be asked.

        Args:
            told: What backends told another process of this gateway, by upstream; those are not asked.

        Raises:
            SchemaError: descriptors cannot be had.
        """
        change, _ = self.prepare(sections, ask=False)
        change()
        for known in self._known.values():
            if known.schema is None and known.section.reflection:
                files = (told or {}).get(known.section.name)
                if files is not None:
                    known.files, known.schema = files, schema_from_files(files)
                else:
                    known.schema = await self._reflected(known)

    def told(self) -> dict[str, Sequence[bytes]]:
        """
        What backends told of themselves, for another process; see ``start``.
        """
        return {name: known.files for name, known in self._known.items() if known.files}

    def prepare(
        self, sections: Iterable[Upstream], *, ask: bool = True
    ) -> tuple[Callable[[], None], dict[str, Schema]]:
        """
        Build what *sections* ask for, changing nothing yet; an equal section keeps its upstream.

        Args:
            ask: Ask backends that reflect again, in the background.

        Returns:
            What makes the change, and what each upstream can then be asked.

        Raises:
            SchemaError: a descriptor file cannot be used, or a backend has not told its descriptors yet.
        """
        built: dict[str, _Known] = {}
        new: list[_Known] = []
        for section in sections:
            if not section.grpc:
                continue
            before = self._known.get(section.name)
            schema = load_schema(section.descriptors) if section.descriptors is not None else None
            if schema is None and not section.reflection:
                schema = event_schema()
            if before is not None and before.section == section:
                built[section.name] = _Known(section, before.upstream, schema or before.schema, before.files)
                continue
            upstream = GrpcUpstream(section, self._reactor, self._random, self._metrics, self._spans, self._changed)
            earlier, files = (before.schema, before.files) if before is not None else (None, ())
            built[section.name] = known = _Known(section, upstream, schema or earlier, files)
            new.append(known)
        unknown = [name for name, known in built.items() if ask and known.schema is None and known.section.reflection]
        if unknown:
            raise SchemaError(f"upstream {unknown[0]!r} has not told its descriptors yet: a restart asks it for them")

        def change() -> None:
            before, self._known = self._known, built
            for known in new:
                known.upstream.start()
            kept = {known.upstream for known in built.values()}
            for known in before.values():
                if known.upstream not in kept:
                    Deferred.fromCoroutine(known.upstream.stop()).addErrback(lambda _: None)

        schemas = {name: known.schema for name, known in built.items() if known.schema is not None}
        return change, schemas

    async def ask_again(self) -> bool:
        """
        Ask every reflecting backend again; True if one of them has changed. One that is away keeps what it told.
        """
        changed = False
        for known in list(self._known.values()):
            if known.section.reflection and known.section.descriptors is None:
                try:
                    known.schema = await self._reflected(known)
                    changed = True
                except SchemaError as error:
                    self._changed("descriptors.kept", {"upstream": known.section.name, "reason": str(error)})
        return changed

    async def _reflected(self, known: _Known) -> Schema:
        try:
            files = await known.upstream.reflect(REFLECTION_S)
            schema = schema_from_files(files)
        except SchemaError as error:
            raise SchemaError(f"upstream {known.section.name!r}: {error}") from error
        known.files = files
        return schema

    def upstream(self, name: str) -> GrpcUpstream:
        """
        Return the upstream called *name*.
        """
        return self._known[name].upstream

    def schemas(self) -> dict[str, Schema]:
        """
        What each upstream can be asked, by name.
        """
        return {name: known.schema for name, known in self._known.items() if known.schema is not None}

    def reflects(self) -> bool:
        """
        Whether some backend tells its descriptors itself.
        """
        return any(known.section.reflection for known in self._known.values())

    def clusters(self) -> list[Cluster[Any]]:
        """
        List all, for the console.
        """
        return [known.upstream.cluster for known in self._known.values()]

    def describe(self) -> list[dict[str, Any]]:
        """
        Tell the state of all, for the admin port.
        """
        return [known.upstream.describe() for known in self._known.values()]

    async def stop(self) -> None:
        """
        End every channel.
        """
        for known in self._known.values():
            await known.upstream.stop()

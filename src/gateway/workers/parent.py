"""
The parent of workers: what ``twistd gateway`` is where ``listen.workers`` says more than one.

It is a gateway like its workers (the same stores, an instance of its own) but for the clients' port, of which it
only makes sure that it is theirs. It owns the admin and API ports and answers there for all of them. Nothing that
clients wait for passes through it.
"""

from __future__ import annotations

import os
import random
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList, DeferredLock, FirstError, gatherResults
from twisted.python.failure import Failure

from gateway.app import Gateway
from gateway.config.describe import describe
from gateway.config.load import parse, read
from gateway.config.sections import Config
from gateway.net.held import HeldPort
from gateway.part import Part
from gateway.ports.realtime import StoreUnavailable
from gateway.reloading import REFUSALS
from gateway.telemetry.logs import Logs
from gateway.telemetry.merged import merged
from gateway.web.admin_pages import Operations
from gateway.web.listen import ListenFailed, check_certificates, hold
from gateway.workers.line import Begin, Gone, Said, Silent
from gateway.workers.pinned import pin
from gateway.workers.supervised import CannotServe, Spawn, State, Worker

__all__ = ["Parent"]

LOOK_S: Final = 1.0
"""How often each worker is asked how it is."""

SILENT_S: Final = 5.0
"""A worker that has not answered for this long counts as not ready."""

SCRAPE_S: Final = 2.0
"""Within this long a worker answers for metrics and the like, or is left out: scrapers wait 10 s by default."""

PREPARE_S: Final = 30.0
"""Within this long a worker has prepared a new configuration, or nobody takes it."""

GRACE_S: Final = 10.0
"""What a worker may take to end beyond the drain that is configured; then it is killed."""

LAPSED_S: Final = 0.001
"""The last lease of an instance that is known to be dead."""

WHO: Final = "parent"


class Parent:
    """
    All of one gateway: its workers, and what speaks for them.

    Args:
        text: What *config* was read from.
        spawn: Starts a worker's process.
        reactor_name: twistd's name of the reactor asked for; empty for ours.
        log_path: Where lines go; None is standard output.
    """

    def __init__(
        self,
        reactor: Any,
        text: str,
        config: Config,
        path: Path,
        logs: Logs,
        spawn: Spawn,
        *,
        reactor_name: str = "",
        log_path: Path | None = None,
    ) -> None:
        self.reactor = reactor
        self.gateway = Gateway(reactor, config, path, logs, part=Part(_without_clients, self._tells))
        logs.sign(instance=self.gateway.live.node.instance)
        self.log = self.gateway.log
        self.config = config
        self.workers = [Worker(number, self, spawn) for number in range(1, config.listen.workers + 1)]
        self._logs = logs
        self._path = path
        self._text = text
        self._pinned = pin(config)
        self._reactor_name = reactor_name
        self._log_path = log_path
        self._held: list[HeldPort] = []
        self._looked: dict[int, Deferred[Any]] = {}
        self._silent: set[int] = set()
        self._changing = DeferredLock()
        self._stopping = False

    # What ``tap`` does with an instance.

    async def start(self) -> None:
        """
        Take the clients' port, open the operators', and start every worker.

        Raises:
            ListenFailed, CertificateFault, CannotServe, OSError: something cannot be used; then no process is left.
        """
        self._held = hold(self.config.listen.clients)
        try:
            await self.gateway.start()
        except BaseException:
            self._release()
            raise
        self._observe()
        try:
            await gatherResults([worker.start() for worker in self.workers], consumeErrors=True)
        except FirstError as error:
            if self._stopping:
                return
            self._stopping = True
            await self._all_ended()
            await self.gateway.close()
            self._release()
            raise CannotServe(str(error.subFailure.value)) from error
        self.log.info(
            "workers.started",
            workers=len(self.workers),
            clients=[listener.endpoint for listener in self.config.listen.clients],
        )

    async def stop(self) -> None:
        """
        Have all workers drain together, within the bound, then end.
        """
        if self._stopping:
            return
        self._stopping = True
        self.log.info("workers.draining", workers=len(self.workers))
        await self._all_ended()
        await self.gateway.stop()
        self._release()

    def _release(self) -> None:
        for port in self._held:
            port.close()

    async def _all_ended(self) -> None:
        # Each has its own bound, and is killed beyond it.
        await DeferredList([worker.end() for worker in self.workers])

    def hang_up(self) -> None:
        """
        Do what SIGHUP asks: all open the log again, and all take the configuration, or none.
        """
        for worker in self.workers:
            worker.tell("rotate")
        self.gateway.background.spawn("workers.reload", self._reload())

    def kill(self) -> None:
        """
        End every worker now.
        """
        for worker in self.workers:
            worker.kill()

    # What a worker needs (``supervised.House``).

    def random(self) -> float:
        """Draw, for waits."""
        return random.random()

    @property
    def end_s(self) -> float:
        """How long a worker may take to end."""
        return self.config.min_drain_s + self.config.drain_timeout_s + GRACE_S

    def begin(self, number: int) -> Begin:
        """
        Say what a worker is told first: the configuration in force, whatever stands in the file by now.
        """
        return Begin(
            number=number,
            path=str(self._path),
            text=self._text,
            reactor=self._reactor_name,
            log_path=None if self._log_path is None else str(self._log_path),
            pretty=self._logs.pretty,
            minting=self.gateway.minter.private(),
            descriptors={name: list(files) for name, files in self.gateway.calls.told().items()},
            pinned=self._pinned,
        )

    def died(self, number: int, how: str, instance: str) -> None:
        """
        Count a worker that has died, and let others tidy up after its instance without waiting for its lease to lapse.
        """
        self.gateway.metrics.worker_ends.inc(str(number), how)
        if instance:
            self.gateway.background.spawn("worker.lapse", self._lapse(instance))

    async def _lapse(self, instance: str) -> None:
        with suppress(StoreUnavailable):  # Then it lapses when its time is over.
            await self.gateway.storage.stores.instances.beat(instance, LAPSED_S)

    def crashed(self, name: str, failure: Failure) -> None:
        """
        Report a fault of our own.
        """
        self.log.error("background.failed", task=f"worker.{name}", exception=failure.getTraceback())

    # Reload: all or nothing.

    def reload(self) -> Deferred[list[str]]:
        """
        The same for who waits to be told the faults; who leaves meanwhile changes nothing.
        """
        told: Deferred[list[str]] = Deferred(lambda _: None)

        async def reload() -> None:
            try:
                faults = await self._reload()
            except Exception:  # Whoever waits is told; the log has it from the background.
                told.errback(Failure())
                raise
            if not told.called:
                told.callback(faults)

        self.gateway.background.spawn("workers.reload", reload())
        return told

    async def _reload(self) -> list[str]:
        await self._changing.acquire()
        try:
            return await self._reload_now()
        finally:
            self._changing.release()

    async def _reload_now(self) -> list[str]:
        reloading = self.gateway.reloading
        try:
            text = read(self._path)
            config = parse(text, str(self._path), os.environ)
            change = reloading.prepare(config)
            check_certificates(config.listen.clients)
        except (*REFUSALS, ListenFailed) as error:
            return reloading.refuse(str(error).splitlines())
        faults = [fault for each in await self._ask_all("prepare", text, PREPARE_S) for fault in _faults(*each)]
        if self._stopping:
            return ["the gateway is being stopped"]
        if faults:
            for worker in self.workers:
                worker.tell("forget")
            return reloading.refuse(faults)
        self._text, self.config = text, config
        change()
        for worker, answer in await self._ask_all("take", None, PREPARE_S):
            if answer is True:
                worker.text = text
        for worker in self.workers:
            # Started meanwhile with what was in force, or unable to change over as it had said.
            if worker.text != self._text and not self._stopping:
                worker.replace()
        return []

    # What the admin port tells.

    def _tells(self, operations: Operations) -> Operations:
        return replace(
            operations,
            metrics=lambda openly: self._later(self._metrics(openly)),
            ready=lambda: not self.why_not_ready(),
            readiness=self._readiness,
            config=lambda: describe(self.config),
            upstreams=lambda: self._later(self._upstreams()),
            reload=self.reload,
        )

    def why_not_ready(self) -> str:
        """
        Say in a word why no clients should be sent here; empty while one worker is ready.

        One is enough: the kernel gives new connections to those that listen, and who has died does not.
        """
        if self._stopping:
            return "draining"
        return "" if any(worker.ready(SILENT_S) for worker in self.workers) else "workers"

    def _readiness(self) -> dict[str, Any]:
        told = self.gateway.readiness()
        reason = self.why_not_ready()
        return {**told, "ready": not reason, "reason": reason, "workers": [each.describe() for each in self.workers]}

    async def _metrics(self, openly: bool) -> bytes:
        answers = await self._ask_all("metrics", openly, SCRAPE_S)
        own = (WHO, self.gateway.metrics.render(openmetrics=openly))
        texts = [(str(worker.number), answer) for worker, answer in answers if isinstance(answer, bytes)]
        return merged("worker", [own, *texts], openly=openly)

    async def _upstreams(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = []
        for worker, answer in await self._ask_all("upstreams", None, SCRAPE_S):
            number = str(worker.number)
            if isinstance(answer, Failure):
                listed.append({"worker": number, "silent": str(answer.value)})
            else:
                listed += [{"worker": number, **each} for each in answer]
        return listed

    # Beside that.

    def _observe(self) -> None:
        metrics = self.gateway.metrics
        metrics.ready.from_source(lambda: [((), float(not self.why_not_ready()))])
        metrics.worker_up.from_source(
            lambda: [((str(each.number),), float(each.state is State.SERVING)) for each in self.workers]
        )
        self.gateway.background.every("workers.look", LOOK_S, self._look)

    def _look(self) -> None:
        for worker in self.workers:
            if worker.state is State.SERVING and worker.number not in self._looked:
                asked = worker.ask("facts", deadline_s=SILENT_S)
                self._looked[worker.number] = asked
                asked.addCallbacks(self._heard, self._unheard, callbackArgs=(worker,), errbackArgs=(worker,))

    def _heard(self, facts: Any, worker: Worker) -> None:
        del self._looked[worker.number]
        worker.heard(facts)
        self._silent.discard(worker.number)

    def _unheard(self, failure: Failure, worker: Worker) -> None:
        del self._looked[worker.number]
        if failure.check(Gone) or worker.number in self._silent:
            return
        self._silent.add(worker.number)
        self.log.warning("worker.silent", number=worker.number, pid=worker.pid, reason=str(failure.value))

    async def _ask_all(self, name: str, body: Any, deadline_s: float) -> list[tuple[Worker, Any]]:
        """Ask every worker that runs; who does not answer is counted, and its answer is the failure."""
        asked = [worker for worker in self.workers if worker.pid]
        waiting = [worker.ask(name, body, deadline_s=deadline_s) for worker in asked]
        answers = []
        for worker, (_, answer) in zip(asked, await DeferredList(waiting, consumeErrors=True), strict=True):
            if isinstance(answer, Failure):
                answer.trap(Silent, Said)
                self.gateway.metrics.worker_silent.inc(str(worker.number), name)
            answers.append((worker, answer))
        return answers

    def _later(self, coroutine: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(coroutine)


def _faults(worker: Worker, answer: Any) -> list[str]:
    """What *worker* says against a new configuration; one that has died meanwhile will start with whatever holds then."""
    if isinstance(answer, Failure):
        return [] if answer.check(Gone) else [f"worker {worker.number}: {answer.value}"]
    return [f"worker {worker.number}: {fault}" for fault in answer]


def _without_clients(config: Config) -> Config:
    """Leave out what workers do: the clients' port, and the wait while they go on accepting."""
    return replace(config, listen=replace(config.listen, clients=()), min_drain_s=0.0)

"""
Instances that are killed with sessions on them: one of two, then all and one started again, over and over.

People come and go all the while, so that a kill finds sessions in every state. See ``bench.sessions``.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.sessions import CONFIG, EventProcess, Person, Session, at_of, settled
from bench.world import World

__all__ = ["Killed", "kills"]


@dataclass
class Killed:
    """
    What became of sessions whose instances were killed.

    Attributes:
        trials: Kills of one instance, and of all.
        sessions: That began, as was told or as a client knows.
        unended: Sessions that have begun and were not ended; ``twice`` that were ended twice, under different ids.
        unbegun: Sessions that clients know and whose beginning was not told.
        lost: Ends with ``instance_lost``.
        early_s: The largest difference between such an end and the kill, beyond what ``accuracy_s`` says.
        repeated: Events that came more than once, under the same id.
    """

    trials: int = 0
    sessions: int = 0
    unended: int = 0
    twice: int = 0
    unbegun: int = 0
    disordered: int = 0
    lost: int = 0
    early_s: float = 0.0
    repeated: int = 0


async def _kills(folder: Path, trials: int, people: int, seed: int) -> Killed:
    rng = random.Random(seed)
    service = EventProcess(folder)
    service.start()
    body = CONFIG.format(port=service.port, window="300ms")
    known: list[Session] = []
    killed_at: dict[str, float] = {}
    try:
        async with World.running(folder, body, number=2, beat="300ms", lease="1s") as world:
            for trial in range(trials):
                victims = [0, 1] if trial % 2 else [rng.randrange(2)]
                await _trial(world, trial, people, victims, known, killed_at, rng)
            await settled(service, known, 30)
            told = service.told()
    finally:
        service.stop()
    seen = Killed(trials)
    first = {event["id"]: event for event in reversed(told)}
    seen.repeated = len(told) - len(first)
    kinds: dict[str, list[dict[str, Any]]] = {}
    for event in {event["id"]: first[event["id"]] for event in told}.values():
        kinds.setdefault(event["session"], []).append(event)
    seen.sessions = len({*kinds, *(session.id for session in known)})
    for session in known:
        seen.unbegun += not any(event["kind"] == "SESSION_STARTED" for event in kinds.get(session.id, ()))
    for id_, events in kinds.items():
        ends = [event for event in events if event["kind"] == "SESSION_ENDED"]
        seen.unended += not ends
        seen.twice += len(ends) > 1
        seen.disordered += events[0]["kind"] != "SESSION_STARTED" or (bool(ends) and events[-1] is not ends[-1])
        for end in ends:
            if end["cause"] == "instance_lost":
                seen.lost += 1
                if id_ in killed_at:
                    late = killed_at[id_] - at_of(end["at"])
                    seen.early_s = max(seen.early_s, late - end["accuracy_s"], -late)
    return seen


async def _trial(
    world: World,
    trial: int,
    people: int,
    victims: Sequence[int],
    known: list[Session],
    killed_at: dict[str, float],
    rng: random.Random,
) -> None:
    """Let people come and go, kill, and start again what was killed."""
    crowd = [Person(world, "web", f"t{trial}-{each}", f"{each}", rng) for each in range(people)]
    places = [rng.randrange(2) for _ in crowd]
    stays: dict[str, int] = {}

    async def visit(person: Person, which: int) -> None:
        await asyncio.sleep(rng.uniform(0, 0.6))
        if not await person.come(which):
            return
        known.append(person.session)
        stays[person.session.id] = which
        if rng.random() < 0.4:
            await asyncio.sleep(rng.uniform(0, 0.6))
            stays.pop(person.session.id, None)
            await person.leave()

    visits = asyncio.gather(*(visit(person, which) for person, which in zip(crowd, places, strict=True)))
    await asyncio.sleep(rng.uniform(0.3, 1.2))
    for which in victims:
        world.kill(which)
    now = time.time()
    killed_at.update((id_, now) for id_, which in stays.items() if which in victims)
    await visits
    if len(victims) == 2:
        await world.start(victims[rng.randrange(2)])
        await asyncio.sleep(2.0)
    for person in crowd:
        if person.session.id and not person.session.closed and person.session.id not in killed_at:
            await person.leave()
    await asyncio.sleep(0.5)
    for which in victims:
        if not await World.ready(world.ports[which]):
            await world.start(which)


def kills(trials: int = 100, *, people: int = 12, seed: int = 1) -> Killed:
    """
    Kill one instance of two, then all of them, again and again, while *people* come and go.
    """
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_kills(Path(folder), trials, people, seed))

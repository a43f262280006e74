"""
The end of an instance, in its order: nobody is sent here any more, nobody is let in, everybody has gone.

A load balancer hears first (``/ready``), then listeners close, then clients are asked to reconnect, which
they can only do elsewhere by then. What stores must know is written before their links are cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from gateway.core.problems import Problem
from gateway.node.drain import flushed, send_away

if TYPE_CHECKING:
    from gateway.app import Gateway

__all__ = ["drain"]

LOOK_S = 0.05

WINDOW_PART: Final = 0.8
"""Of the time-out that the window may take: whoever is asked last has the rest for its commands."""


async def drain(gateway: Gateway) -> None:
    """
    Let requests and commands end, send clients elsewhere, cut what is left after ``gateway.drain_timeout``.
    """
    config, reactor, site, edge, node = gateway.config, gateway.reactor, gateway.site, gateway.edge, gateway.live.node
    site.draining = True
    gateway.log.info(
        "gateway.draining",
        requests=len(edge.open),
        connections=site.connections,
        clients=len(node.clients) + len(node.opening),
    )
    if gateway.storage.ends_with_process:
        node.sessions.window_s = 0  # There is nobody at whom a session could go on.
    if config.min_drain_s:
        await deferLater(reactor, config.min_drain_s)
    await gateway.listening.stop()
    site.drain()
    until = reactor.seconds() + config.drain_timeout_s
    window_s = min(config.drain_window_s, WINDOW_PART * config.drain_timeout_s)
    leaving = Deferred.fromCoroutine(send_away(node, window_s, config.drain_timeout_s))
    while (edge.open or not leaving.called) and reactor.seconds() < until:
        await deferLater(reactor, LOOK_S)
    unanswered = await leaving
    emptied = site.emptied()
    while not emptied.called and reactor.seconds() < until:
        await deferLater(reactor, LOOK_S)
    given_up = list(edge.open)
    for exchange in given_up:
        edge.give_up(exchange, Problem("draining"))
    if given_up:
        await deferLater(reactor, LOOK_S)
    await flushed(node, max(0.0, until - reactor.seconds()))
    site.stop()
    await gateway.close()
    gateway.log.info("gateway.stopped", requests_cut=len(given_up), clients_cut=unanswered)

"""
The metrics of real time: clients, commands, publications, deliveries. See ``telemetry.metrics``.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from prometheus_client import CollectorRegistry

from gateway.telemetry.tally import Reading, Tally

__all__ = ["RealtimeMetrics"]


class RealtimeMetrics:
    """
    Counters of one node, registered where the others are.
    """

    def __init__(self, registry: CollectorRegistry, auth_failures: Tally) -> None:
        self.auth_failures = auth_failures
        self.clients = Reading("gateway_clients", "Real-time clients connected now.", ("transport",))
        self.opening = Reading("gateway_clients_opening", "Connections that are not authenticated yet.")
        self.users = Reading("gateway_users", "Different users connected to this instance.")
        self.channels = Reading("gateway_channels", "Channels that somebody here listens to.")
        self.subscriptions = Reading("gateway_subscriptions", "Subscriptions that stand.")
        self.closed = Tally("gateway_clients_closed", "Connections that ended, by close code.", ("transport", "code"))
        self.commands = Tally("gateway_commands", "Commands answered: ok, or an error code.", ("command", "outcome"))
        self.malformed = Tally("gateway_client_frames_malformed", "Frames that could not be read.", ("transport",))
        self.publications = Tally("gateway_publications", "Publications made here.", ("channels", "outcome"))
        self.deliveries = Tally("gateway_deliveries", "Publications given to clients.", ("channels",))
        self.facts_lost = Tally("gateway_facts_lost", "Facts that backends were not told.", ("kind", "why"))
        self.sessions = Reading("gateway_sessions", "Sessions whose connection is here.")
        self.session_steps = Reading(
            "gateway_session_steps_waiting", "Beginnings and ends of sessions not written yet."
        )
        self.session_steps_lost = Tally(
            "gateway_session_steps_lost", "Beginnings and ends that will never be written.", ("step", "why")
        )
        self.events_waiting = Reading("gateway_events_waiting", "Events of sessions that are this instance's to tell.")
        self.events_age = Reading("gateway_events_oldest_age_seconds", "How long the oldest of them has waited.")
        self.events_overflow = Reading(
            "gateway_events_overflow", "Events that found no room, of the partitions that are this instance's to tell."
        )
        self.events_told = Tally("gateway_events_told", "Events that were taken.", ("kind",))
        self.events_given_up = Tally("gateway_events_given_up", "Events that nobody will be told, by why.", ("why",))
        self.event_batches = Tally("gateway_event_batches", "Batches of events, by what became of them.", ("outcome",))
        self.places = Tally(
            "gateway_presence_places",
            "Places whose connection was lost: held, then returned to or expired.",
            ("outcome",),
        )
        self.places_unwritten = Reading(
            "gateway_presence_unwritten", "Places that the store does not have as they should be."
        )
        self.instances = Reading("gateway_instances", "Instances that live, as this one sees it.")
        self.silent = Tally("gateway_instances_silent", "Answers of other instances that did not come.", ("question",))
        self.instances_tidied = Reading("gateway_instances_tidied", "Dead instances that this one tidied up after.")
        for metric in vars(self).values():
            if isinstance(metric, (Tally, Reading)) and metric is not auth_failures:
                registry.register(metric)

    def delivered(self, pattern: str, number: int) -> None:
        """
        Count deliveries of channels that have *pattern*.
        """
        self.deliveries.inc(pattern, by=number)

    def place(self, outcome: str, number: int) -> None:
        """
        Count what became of *number* places whose connection was lost.
        """
        self.places.inc(outcome, by=number)

    def watch(self, node: Any) -> None:
        """
        Read what *node* has, whenever somebody scrapes.
        """
        self.clients.from_source(
            lambda: [
                ((kind,), float(number))
                for kind, number in Counter(client.transport.kind for client in node.clients.values()).items()
            ]
        )
        self.opening.from_source(lambda: [((), float(len(node.opening)))])
        self.users.from_source(lambda: [((), float(len(node.users)))])
        self.channels.from_source(lambda: [((), float(len(node.hub.rooms)))])
        self.subscriptions.from_source(lambda: [((), float(sum(room.size for room in node.hub.rooms.values())))])
        self.sessions.from_source(lambda: [((), float(len(node.sessions.held)))])
        self.session_steps.from_source(lambda: [((), float(len(node.sessions.journal)))])
        self.places_unwritten.from_source(lambda: [((), float(node.presence.unwritten))])
        self.instances.from_source(lambda: [((), float(len(node.membership.keeper.living)))])
        self.instances_tidied.from_source(lambda: [((), float(node.membership.keeper.claimed))])

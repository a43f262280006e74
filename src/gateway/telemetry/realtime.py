"""
The metrics of real time: clients, commands, publications, deliveries. See ``telemetry.metrics``.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from prometheus_client import CollectorRegistry

from gateway.telemetry.tally import Count, Reading, Series, Tally, Timing

__all__ = ["RealtimeMetrics", "Traffic"]


class Traffic:
    """
    Messages and bytes of all clients of a node, ever: plain numbers, for they change with every frame.
    """

    __slots__ = ("bytes_in", "bytes_out", "frames_in", "frames_out")

    def __init__(self) -> None:
        self.frames_in = self.frames_out = self.bytes_in = self.bytes_out = 0

    def took(self, size: int) -> None:
        """Count a message of *size* bytes that came."""
        self.frames_in += 1
        self.bytes_in += size

    def gave(self, size: int) -> None:
        """Count one that was sent, or waits to be."""
        self.frames_out += 1
        self.bytes_out += size


class RealtimeMetrics:
    """
    Counters of one node, registered where the others are.
    """

    def __init__(self, registry: CollectorRegistry, auth_failures: Tally) -> None:
        self.auth_failures = auth_failures
        self.traffic = Traffic()
        self._kept: dict[str, tuple[Count, Count, Series]] = {}
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
        self.delivery_seconds = Timing(
            "gateway_delivery_duration_seconds",
            "From a publication's arrival at this instance, or at its own publisher's, to the last socket's write.",
            ("channels",),
        )
        self.publish_seconds = Timing(
            "gateway_publish_duration_seconds", "Until the store has a publication and its position.", ("channels",)
        )
        self.recoveries = Tally(
            "gateway_recoveries",
            "Subscriptions that asked for what they missed, by what became of it.",
            ("channels", "outcome"),
        )
        self.frames = Reading(
            "gateway_client_frames",
            "Messages of real-time clients and to them, without fan-out.",
            ("direction",),
            counter=True,
        )
        self.frame_bytes = Reading("gateway_client_bytes", "Bytes of these.", ("direction",), counter=True)
        self.fan_out_bytes = Tally("gateway_fan_out_bytes", "Bytes of publications given to clients.", ("channels",))
        self.slow = Reading("gateway_clients_slow", "Clients for whom something waits.")
        self.waiting_bytes = Reading("gateway_outbox_bytes", "What waits for slow clients.")
        self.forms = Reading("gateway_clients_by_encoding", "Real-time clients connected now.", ("encoding",))
        self.sessions_opened = Tally("gateway_sessions_opened", "Sessions that began here.")
        self.sessions_closed = Tally("gateway_sessions_closed", "Sessions that were ended here, by cause.", ("cause",))
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
            if isinstance(metric, (Tally, Timing, Reading)) and metric is not auth_failures:
                registry.register(metric)

    def delivered(self, pattern: str, number: int, size: int, seconds: float) -> None:
        """
        Count deliveries of channels that have *pattern*.

        Args:
            number: Publications, times those who got them.
            size: Bytes of all that.
            seconds: Since the first of them came.
        """
        kept = self._kept.get(pattern)
        if kept is None:
            labels = (pattern,)
            kept = self._kept[pattern] = (
                self.deliveries.series(labels),
                self.fan_out_bytes.series(labels),
                self.delivery_seconds.series(labels),
            )
        deliveries, sizes, timing = kept
        deliveries.number += number
        sizes.number += size
        timing.observe(seconds)

    def published(self, pattern: str, outcome: str, seconds: float) -> None:
        """
        Count a publication that the store took, or did not want.
        """
        self.publications.inc(pattern, outcome)
        self.publish_seconds.observe(seconds, pattern)

    def started(self, record: Any) -> None:
        """
        Count a session that began (``node.sessions.SessionWitness``).
        """
        self.sessions_opened.inc()

    def ended(self, record: Any, cause: str, ended_at: float) -> None:
        """
        Count one that is over.
        """
        self.sessions_closed.inc(cause)

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
        traffic = self.traffic
        self.frames.from_source(lambda: [(("in",), traffic.frames_in), (("out",), traffic.frames_out)])
        self.frame_bytes.from_source(lambda: [(("in",), traffic.bytes_in), (("out",), traffic.bytes_out)])
        self.slow.from_source(
            lambda: [
                ((), float(sum(client.transport.blocked or bool(client.outbox) for client in node.clients.values())))
            ]
        )
        self.waiting_bytes.from_source(
            lambda: [((), float(sum(client.outbox.bytes for client in node.clients.values())))]
        )
        self.forms.from_source(
            lambda: [
                ((kind,), float(number))
                for kind, number in Counter(
                    client.transport.form.dialect.name for client in node.clients.values()
                ).items()
            ]
        )
        self.sessions.from_source(lambda: [((), float(len(node.sessions.held)))])
        self.session_steps.from_source(lambda: [((), float(len(node.sessions.journal)))])
        self.places_unwritten.from_source(lambda: [((), float(node.presence.unwritten))])
        self.instances.from_source(lambda: [((), float(len(node.membership.keeper.living)))])
        self.instances_tidied.from_source(lambda: [((), float(node.membership.keeper.claimed))])

"""
Where a gRPC backend is, and the channel to it.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import grpc

from gateway.config.sections import Upstream, UpstreamTls
from gateway.upstream.target import BadTarget, Target

__all__ = ["MAX_MESSAGE_BYTES", "GrpcTarget", "open_channel", "read_target"]

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""Largest message in either direction, gRPC's own default."""

_authority = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}").fullmatch


class GrpcTarget(NamedTuple):
    """
    One target.

    Attributes:
        name: For logs, metrics and the console.
        address: As grpcio takes it.
        tls: Whether to speak TLS.
    """

    name: str
    address: str
    tls: bool

    def plainly(self) -> Target:
        """
        Return it as a place to connect to.
        """
        if self.address.startswith("unix:"):
            return Target.parse(self.address)
        return Target.parse(f"{'https' if self.tls else 'http'}://{self.name}")


def read_target(text: str) -> GrpcTarget:
    """
    Read ``host:port``, ``grpc://host:port``, ``grpcs://host:port`` or ``unix:/path``.

    Raises:
        BadTarget: with what is wrong.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/"):
            raise BadTarget(f"{text!r}: a unix socket needs an absolute path")
        return GrpcTarget(path, text, tls=False)
    tls = text.startswith("grpcs://")
    authority = text.removeprefix("grpcs://").removeprefix("grpc://")
    if not _authority(authority):
        raise BadTarget(f"{text!r} is not host:port, grpcs://host:port or unix:/path")
    return GrpcTarget(authority, f"dns:///{authority}", tls=tls)


def open_channel(target: GrpcTarget, section: Upstream) -> grpc.Channel:
    """
    Open the channel to *target*; it connects when it is first used. Not before the last fork.

    Raises:
        OSError: a certificate file cannot be read.
    """
    options: list[tuple[str, str | int]] = [
        ("grpc.enable_retries", 0),  # Ours are counted, budgeted and go to another target.
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # Two channels to one address must be two connections: one dead subchannel is then one target's affair.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if not target.tls:
        return grpc.insecure_channel(target.address, options)
    if section.tls.server_name:
        options.append(("grpc.ssl_target_name_override", section.tls.server_name))
    return grpc.secure_channel(target.address, _credentials(section.tls), options)


def _credentials(tls: UpstreamTls) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        tls.ca_file.read_bytes() if tls.ca_file is not None else None,
        tls.key_file.read_bytes() if tls.key_file is not None else None,
        tls.certificate_file.read_bytes() if tls.certificate_file is not None else None,
    )

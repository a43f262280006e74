"""
What operations answer with, as plain values: the members and names of Centrifugo's server API.

Payloads are ``msgspec.Raw``: they were JSON when they came, and are not read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Raw

from gateway.core.publications import ClientInfo, Position, Publication, Published
from gateway.core.verdicts import ClientError
from gateway.node.client import Client

__all__ = ["Result", "connection", "failed", "info", "place", "publication", "published"]

Result = dict[str, Any]


def failed(error: ClientError) -> Result:
    """
    Why one of several was not done.
    """
    return {"error": {"code": error.code, "message": error.text}}


def place(position: Position) -> Result:
    """
    Where something stands in a stream.
    """
    return {"offset": position.offset, "epoch": position.epoch}


def published(of: Published, *, asked: bool) -> Result:
    """
    What became of a publication; with how many replicas have it if that was *asked*.
    """
    told = place(of.position)
    return {**told, "replicas": of.replicas} if asked else told


def info(client: ClientInfo) -> Result:
    """
    Who a connection is to others.
    """
    told: Result = {"client": client.client, "user": client.user}
    if client.conn_info:
        told["conn_info"] = Raw(client.conn_info)
    if client.chan_info:
        told["chan_info"] = Raw(client.chan_info)
    return told


def publication(of: Publication) -> Mapping[str, Any]:
    """
    A publication of a stream.
    """
    told: Result = {"data": Raw(of.data), "offset": of.offset}
    if of.info is not None:
        told["info"] = info(of.info)
    if of.tags:
        told["tags"] = dict(of.tags)
    return told


def connection(client: Client) -> Result:
    """
    A connection; its channels are the caller's to add.
    """
    return {
        "app_name": client.name,
        "app_version": client.version,
        "transport": client.transport.kind,
        "protocol": "protobuf" if client.transport.form.dialect.binary else "json",
        "user": client.user,
        "session": client.session.id if client.session is not None else "",
        "address": client.opening.address,
    }

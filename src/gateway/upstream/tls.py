"""
TLS towards backends and stores: verified by service-identity, with our certificate where one is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from OpenSSL import crypto
from OpenSSL.SSL import Error
from twisted.internet.interfaces import IProtocolFactory, IReactorTime
from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS, trustRootFromCertificates
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol

from gateway.config.sections import UpstreamTls

__all__ = ["client_options", "tls_factory"]


def client_options(section: UpstreamTls, host: str, protocols: Sequence[bytes] = (b"http/1.1",)) -> Any:
    """
    Make the creator of client connections to *host*.

    TLS 1.2 at least, the name verified (``server_name`` or *host*, an address as an address).
    The certificate's file may hold the chain above it, too.

    Args:
        protocols: Offered by ALPN.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file holds no usable certificate, or no key that belongs to it.
    """
    trust = None
    if section.ca_file is not None:
        trust = trustRootFromCertificates(_certificates(section.ca_file))
    own = None
    chain: list[Any] = []
    if section.certificate_file is not None and section.key_file is not None:
        chain = [certificate.original for certificate in _certificates(section.certificate_file)[1:]]
        pem = section.certificate_file.read_bytes() + b"\n" + section.key_file.read_bytes()
        try:
            own = PrivateCertificate.loadPEM(pem)
        except (Error, crypto.Error) as error:
            raise ValueError(f"{section.key_file}: no key in PEM for {section.certificate_file}") from error
    return optionsForClientTLS(
        section.server_name or host,
        trustRoot=trust,
        clientCertificate=own,
        acceptableProtocols=list(protocols) or None,
        extraCertificateOptions={"extraCertChain": chain} if chain else None,
    )


def tls_factory(options: Any, factory: IProtocolFactory, clock: IReactorTime) -> TLSMemoryBIOFactory:
    """
    Wrap *factory* in TLS as a client.

    Without the stock aggregation of small writes: a request is written at once, and would only
    wait for the reactor's next turn.
    """
    wrapped = TLSMemoryBIOFactory(options, True, factory, clock)
    wrapped.protocol = TLSMemoryBIOProtocol
    return wrapped


def _certificates(file: Path) -> list[Certificate]:
    marker = b"-----END CERTIFICATE-----"
    blocks = file.read_bytes().split(marker)[:-1]
    try:
        found = [Certificate.loadPEM(block + marker) for block in blocks]
    except (Error, crypto.Error) as error:
        raise ValueError(f"{file}: not certificates in PEM") from error
    if not found:
        raise ValueError(f"{file}: no certificate in PEM")
    return found

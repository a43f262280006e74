"""
TLS towards backends: verified by service-identity, with our certificate where one is asked for.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS, trustRootFromCertificates

from gateway.config.sections import UpstreamTls

__all__ = ["client_options"]


def client_options(section: UpstreamTls, host: str) -> Any:
    """
    Make the creator of client connections to *host*.

    TLS 1.2 at least, the name verified (``server_name`` or *host*, an address as an address),
    ALPN ``http/1.1``.

    Raises:
        OSError: a file cannot be read.
        OpenSSL.SSL.Error: a file is not PEM.
    """
    trust = None
    if section.ca_file is not None:
        trust = trustRootFromCertificates(_certificates(section.ca_file.read_bytes()))
    own = None
    if section.certificate_file is not None and section.key_file is not None:
        own = PrivateCertificate.loadPEM(section.certificate_file.read_bytes() + b"\n" + section.key_file.read_bytes())
    return optionsForClientTLS(
        section.server_name or host,
        trustRoot=trust,
        clientCertificate=own,
        acceptableProtocols=[b"http/1.1"],
    )


def _certificates(pem: bytes) -> list[Certificate]:
    marker = b"-----END CERTIFICATE-----"
    return [Certificate.loadPEM(block + marker) for block in pem.split(marker)[:-1]]

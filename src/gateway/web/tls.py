"""
TLS towards clients: certificates by name, client certificates, and all of it replaced in flight.

TLS 1.2 and 1.3 with forward secrecy and authenticated ciphers (Mozilla's "intermediate"), ALPN
``http/1.1``. Contexts are immutable once made: ``replace`` swaps them for new connections, and
those that are open keep the one they began with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet.interfaces import IAddress, IOpenSSLServerConnectionCreator, IProtocol
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

from gateway.config.sections import Certificate, Listener
from gateway.core.certificate import ClientCertificate

__all__ = ["CertificateFault", "Contexts", "ServerTls", "TlsFactory", "client_certificate"]

CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"
PROTOCOLS = [b"http/1.1"]


class CertificateFault(Exception):
    """
    A certificate, key or authority file cannot be used; the text says which and why.
    """


class Contexts:
    """
    What one listener shows, to whom.

    Raises:
        CertificateFault: when a file is missing, malformed, or a key is not its certificate's.
    """

    def __init__(self, listener: Listener) -> None:
        self._by_name: dict[str, SSL.Context] = {}
        contexts = [self._make(certificate, listener) for certificate in listener.certificate]
        self.default = contexts[0]
        for certificate, context in zip(listener.certificate, contexts, strict=True):
            for name in certificate.names or _names_in(certificate.certificate_file):
                self._by_name.setdefault(name.lower().rstrip("."), context)
        self.default.set_tlsext_servername_callback(self._choose)

    def named(self, name: str) -> SSL.Context:
        """
        Give the context for a server name: its own, a wildcard's of one label, else the first.
        """
        name = name.lower().rstrip(".")
        found = self._by_name.get(name)
        if found is None:
            found = self._by_name.get("*." + name.partition(".")[2])
        return found or self.default

    def _choose(self, connection: SSL.Connection) -> None:
        name = connection.get_servername()
        if name is not None:
            context = self.named(name.decode("ascii", "replace"))
            if context is not self.default:
                connection.set_context(context)

    def _make(self, certificate: Certificate, listener: Listener) -> SSL.Context:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.set_cipher_list(CIPHERS)
        context.set_alpn_select_callback(_select_protocol)
        try:
            context.use_certificate_chain_file(str(certificate.certificate_file))
        except SSL.Error as exc:
            raise CertificateFault(f"{certificate.certificate_file}: {_why(exc)}") from exc
        try:
            context.use_privatekey_file(str(certificate.key_file))
            context.check_privatekey()
        except SSL.Error as exc:
            raise CertificateFault(f"{certificate.key_file}: {_why(exc)}") from exc
        if listener.client_ca_file is not None and listener.client_certificate != "none":
            try:
                context.load_verify_locations(str(listener.client_ca_file))
                context.load_client_ca(str(listener.client_ca_file).encode())
            except (SSL.Error, OSError, ValueError) as exc:
                raise CertificateFault(f"{listener.client_ca_file}: {_why(exc)}") from exc
            mode = SSL.VERIFY_PEER
            if listener.client_certificate == "required":
                mode |= SSL.VERIFY_FAIL_IF_NO_PEER_CERT
            context.set_verify(mode)
            # A resumed session would be believed without its certificate being looked at again.
            context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
            context.set_options(SSL.OP_NO_TICKET)
        else:
            context.set_session_id(b"gateway")
        return context


def _select_protocol(_: SSL.Connection, offered: list[bytes]) -> Any:
    for protocol in PROTOCOLS:
        if protocol in offered:
            return protocol
    return SSL.NO_OVERLAPPING_PROTOCOLS


def _names_in(path: Path) -> list[str]:
    """The DNS names a certificate is for; its common name where it has none."""
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        return [str(each.value) for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]


def _why(exc: Exception) -> str:
    if isinstance(exc, SSL.Error) and exc.args and exc.args[0]:
        return "; ".join(str(entry[-1]) for entry in exc.args[0])
    return str(exc) or "cannot be read"


@implementer(IOpenSSLServerConnectionCreator)
class ServerTls:
    """
    Makes the TLS side of each accepted connection.
    """

    def __init__(self, contexts: Contexts) -> None:
        self._contexts = contexts

    def replace(self, contexts: Contexts) -> None:
        """
        Use *contexts* for connections made from now on.
        """
        self._contexts = contexts

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """
        Make a connection object in its accepting state.
        """
        connection = SSL.Connection(self._contexts.default, None)
        connection.set_accept_state()
        return connection


class TlsFactory(TLSMemoryBIOFactory):
    """
    Wraps each connection in TLS.
    """

    # The channel writes an answer in one piece; the stock aggregation would make a timer for each.
    protocol = TLSMemoryBIOProtocol

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """
        Make the TLS layer around what the wrapped factory makes, if it makes something.
        """
        inner: IProtocol | None = self.wrappedFactory.buildProtocol(addr)
        wrap: Any = self.protocol
        return None if inner is None else wrap(self, inner)


def client_certificate(transport: Any) -> ClientCertificate | None:
    """
    Give what the client's verified certificate says; None without one.
    """
    shown = transport.getPeerCertificate()
    if shown is None:
        return None
    certificate: x509.Certificate = shown.to_cryptography()
    names: x509.SubjectAlternativeName | None = None
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        # What cannot be read names nobody.
        names = None
    common = [str(each.value) for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]

    def named(kind: Any) -> tuple[str, ...]:
        return tuple(map(str, names.get_values_for_type(kind))) if names is not None else ()

    return ClientCertificate(
        certificate.subject.rfc4514_string(),
        common[0] if len(common) == 1 else "",
        named(x509.DNSName),
        named(x509.UniformResourceIdentifier),
        named(x509.RFC822Name),
        f"{certificate.serial_number:x}",
        certificate.fingerprint(SHA256()).hex(),
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )

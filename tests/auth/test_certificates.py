"""
Client certificates as identities.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.auth.making import NOW

from gateway.auth.certificates import Certificates
from gateway.config.sections import CertificateIdentity
from gateway.core.certificate import ClientCertificate
from gateway.core.identity import Revocation
from gateway.core.problems import Problem
from gateway.memory.revocations import MemoryRevocations

SHOWN = ClientCertificate(
    "CN=alice,O=Example",
    "alice",
    ("device.example",),
    ("spiffe://example/alice",),
    (),
    "1f",
    "ab" * 32,
    NOW - 100,
    NOW + 100,
)


def holder(section: CertificateIdentity, shown: ClientCertificate = SHOWN, now: float = NOW) -> str:
    """Who holds it, or why nobody does."""
    try:
        return Certificates(section, lambda _: False).holder(shown, now).subject
    except Problem as problem:
        return problem.reason


def test_claims() -> None:
    """
    Rules see a certificate as they see a token.
    """
    identity = Certificates(CertificateIdentity(), lambda _: False).holder(SHOWN, NOW)
    assert (identity.subject, identity.issuer, identity.expires_at) == ("certificate:alice", "certificate", NOW + 100)
    assert identity.claims["sub"] == "certificate:alice"
    assert identity.claims["certificate"]["uris"] == ["spiffe://example/alice"]
    assert identity.credential == b""


@pytest.mark.parametrize(
    ("section", "subject"),
    [
        (CertificateIdentity(plain=True), "alice"),
        (CertificateIdentity("uri", plain=True), "spiffe://example/alice"),
        (CertificateIdentity("dns"), "certificate:device.example"),
        (CertificateIdentity("subject", plain=True), "CN=alice,O=Example"),
        (CertificateIdentity("email"), "certificate_subject"),
    ],
)
def test_who_it_is(section: CertificateIdentity, subject: str) -> None:
    """
    The configured name is the subject; without it nobody is.
    """
    assert holder(section) == subject


def test_several_names_are_none() -> None:
    """
    Of two names none is the one that was meant.
    """
    assert holder(CertificateIdentity("dns"), replace(SHOWN, dns=("a.example", "b.example"))) == "certificate_subject"


def test_a_connection_does_not_make_it_live_longer() -> None:
    """
    A certificate that ends while its connection goes on is refused from then on.
    """
    assert holder(CertificateIdentity(), now=NOW + 99) == "certificate:alice"
    assert holder(CertificateIdentity(), now=NOW + 100) == "expired"
    assert holder(CertificateIdentity(), now=NOW - 101) == "not_yet_valid"


@pytest.mark.parametrize(
    "revocation",
    [
        Revocation(NOW + 200, token_id=SHOWN.sha256),
        Revocation(NOW + 200, subject="certificate:alice", issued_before=NOW),
    ],
)
def test_revoked(revocation: Revocation) -> None:
    """
    A certificate is revoked by its SHA-256, or with all that its subject was issued.
    """
    revoked = MemoryRevocations(lambda: NOW)
    revoked.add(revocation)
    with pytest.raises(Problem) as caught:
        Certificates(CertificateIdentity(), revoked.is_revoked).holder(SHOWN, NOW)
    assert caught.value.reason == "revoked"

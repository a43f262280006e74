"""
What was revoked, in memory and from a file.
"""

from pathlib import Path

import pytest
from tests.auth.making import NOW

from gateway.auth.revocation_file import RevocationFault, load_revocations
from gateway.core.identity import Identity, Revocation
from gateway.memory.revocations import MemoryRevocations


class Wall:
    now = NOW

    def __call__(self) -> float:
        return self.now


def who(**more: object) -> Identity:
    return Identity(**{"subject": "alice", "issuer": "i", "expires_at": NOW + 60, "issued_at": NOW, **more})  # type: ignore[arg-type]


def test_token_and_session_are_revoked_until_their_time() -> None:
    """
    A revoked id counts for ``jti`` and ``sid``, until the time named; of two times the later.
    """
    wall = Wall()
    revocations = MemoryRevocations(wall)
    assert not revocations.is_revoked(who(token_id="t1"))
    revocations.add(Revocation(NOW + 10, token_id="t1"))
    revocations.add(Revocation(NOW + 5, token_id="t1"))
    assert revocations.is_revoked(who(token_id="t1"))
    assert revocations.is_revoked(who(session_id="t1"))
    assert not revocations.is_revoked(who(token_id="t2", session_id="s2"))
    assert not revocations.is_revoked(who())
    wall.now = NOW + 10
    assert not revocations.is_revoked(who(token_id="t1"))


def test_subject_is_revoked_for_what_was_issued_before() -> None:
    """
    Tokens issued before the time are revoked, also those that do not say when; later ones are good.
    """
    wall = Wall()
    revocations = MemoryRevocations(wall)
    revocations.add(Revocation(NOW + 10, subject="alice", issued_before=NOW))
    assert revocations.is_revoked(who(issued_at=NOW - 1))
    assert revocations.is_revoked(who(issued_at=None))
    assert not revocations.is_revoked(who(issued_at=NOW))
    assert not revocations.is_revoked(who(subject="bob", issued_at=NOW - 1))
    revocations.add(Revocation(NOW + 20, subject="alice", issued_before=NOW - 100))
    wall.now = NOW + 15
    assert revocations.is_revoked(who(issued_at=NOW - 1))
    wall.now = NOW + 20
    assert not revocations.is_revoked(who(issued_at=NOW - 1))


def test_past_revocations_are_swept_and_others_never() -> None:
    """
    However many are added, those that hold are kept and those that ended do not pile up.
    """
    wall = Wall()
    revocations = MemoryRevocations(wall)
    for number in range(5000):
        revocations.add(Revocation(NOW + 1e6, token_id=f"kept{number}"))
    for number in range(50000):
        revocations.add(Revocation(wall.now + 5, token_id=f"t{number}"))
        revocations.add(Revocation(wall.now + 5, subject=f"s{number % 100}", issued_before=wall.now))
        wall.now += 1
    assert revocations.held < 25000
    assert all(revocations.is_revoked(who(token_id=f"kept{number}")) for number in range(5000))


def test_file_is_loaded(tmp_path: Path) -> None:
    """
    Each line adds a token, a session or a subject; comments, empty lines and what has ended are left out.
    """
    path = tmp_path / "revoked.jsonl"
    path.write_bytes(
        b'# by hand\n\n{"token_id": "t1", "until": %d}\r\n{"jti":"t2","until":%d}\n  {"sid":"s1","until":%d}\n'
        b'{"subject":"bob","issued_before":%d.5,"until":%d}\n{"jti":"old","until":%d}'
        % (*[NOW + 9] * 3, NOW, NOW + 9, NOW)
    )
    revocations = MemoryRevocations(lambda: NOW)
    assert load_revocations(path, revocations, NOW) == 4
    assert revocations.held == 4
    for revoked in (
        who(token_id="t1"),
        who(token_id="t2"),
        who(session_id="s1"),
        who(subject="bob"),
    ):
        assert revocations.is_revoked(revoked)
    assert not revocations.is_revoked(who(token_id="old"))


def test_faults_are_named_by_line_and_nothing_is_taken(tmp_path: Path) -> None:
    """
    Every wrong line is named with its number; a file with one is not taken at all.
    """
    path = tmp_path / "revoked.jsonl"
    lines = [
        (b'{"jti":"good","until":%d}' % (NOW + 9), ""),
        (b"{", "Expecting property name"),
        (b"[]", "not an object"),
        (b'{"jti":"a","jti":"b","until":1}', "twice"),
        (b'{"until":1}', "exactly one of"),
        (b'{"jti":"a","subject":"b","until":1}', "exactly one of"),
        (b'{"jti":7,"until":1}', "jti is not a text"),
        (b'{"jti":"","until":1}', "jti is not a text"),
        (b'{"jti":"a"}', "until is missing"),
        (b'{"jti":"a","until":"1"}', "until is not a time"),
        (b'{"jti":"a","until":true}', "until is not a time"),
        (b'{"jti":"a","until":NaN}', "NaN"),
        (b'{"jti":"a","until":1700000000000}', "until is not a time"),
        (b'{"jti":"a","untill":1}', "'untill' has no meaning"),
        (b'{"jti":"a","until":1,"issued_before":1}', "'issued_before' has no meaning"),
        (b'{"subject":"a","until":9999999999}', "issued_before is missing"),
        (b'{"jti":"\xff","until":1}', "not UTF-8"),
        (b"[" * 100_000, ":18: "),
    ]
    path.write_bytes(b"\n".join(line for line, _ in lines))
    revocations = MemoryRevocations(lambda: NOW)
    with pytest.raises(RevocationFault) as caught:
        load_revocations(path, revocations, NOW)
    faults = str(caught.value).splitlines()
    expected = [(number, text) for number, (_, text) in enumerate(lines, 1) if text]
    assert len(faults) == len(expected)
    for fault, (number, text) in zip(faults, expected, strict=True):
        assert fault.startswith(f"{path}:{number}: ")
        assert text in fault
    assert revocations.held == 0
    path.write_bytes(b"{\n" * 50)
    with pytest.raises(RevocationFault, match="and 30 more"):
        load_revocations(path, revocations, NOW)
    with pytest.raises(FileNotFoundError):
        load_revocations(tmp_path / "missing", revocations, NOW)

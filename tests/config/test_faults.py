"""
Known-bad files: each gives exactly the faults that its lines after ``#!`` say.

``{here}`` stands for the folder. ``SECRET`` and whatever begins with ``hunter2`` must never appear.
"""

from pathlib import Path

import pytest

from gateway.config.faults import Fault, dotted
from gateway.config.load import ConfigErrors, load, parse

BAD = Path(__file__).parent / "bad"
ENVIRON = {
    "SECRET": "hunter2-hunter2-hunter2-hunter2-hunter2",
    "SECRET_WITH_LINE_END": "hunter2-hunter2-hunter2-hunter2-hunter2\n",
}

# These end before a comment could be read.
SYNTAX = {
    "syntax.toml": ["3:1: not TOML: unclosed array"],
    "syntax_at_the_end.toml": ["3:1: not TOML: unterminated string at the end of the file"],
    "key_twice.toml": ["3:16: not TOML: cannot overwrite a value"],
}


def faults_of(path: Path) -> ConfigErrors:
    with pytest.raises(ConfigErrors) as raised:
        load(path, ENVIRON)
    return raised.value


@pytest.mark.parametrize("path", sorted(BAD.glob("*.toml")), ids=lambda path: path.stem)
def test_a_bad_file_gives_exactly_its_faults(path: Path) -> None:
    """
    Every fault is reported, once, with line, column, key, what is wrong, and what was meant.
    """
    marked = [line[3:] for line in path.read_text().splitlines() if line.startswith("#! ")]
    expected = SYNTAX.get(path.name, marked)
    assert expected
    found = faults_of(path)
    assert [str(fault) for fault in found.faults] == [line.replace("{here}", str(BAD)) for line in expected]
    assert str(found) == "\n".join(f"{path}:{fault}" for fault in found.faults)


@pytest.mark.parametrize("path", sorted(BAD.glob("*.toml")), ids=lambda path: path.stem)
def test_no_secret_is_in_a_message(path: Path) -> None:
    """
    Neither the text nor the repr of the errors holds a secret, from the file or the environment.
    """
    found = faults_of(path)
    for text in (str(found), repr(found), repr(found.__cause__), repr(found.__context__)):
        assert "hunter2" not in text
        assert "5555" not in text


def test_there_are_enough_bad_files() -> None:
    """
    The table has more than 30 files.
    """
    assert len(list(BAD.glob("*.toml"))) > 30


def test_a_missing_file_is_a_fault(tmp_path: Path) -> None:
    """
    A configuration that cannot be read is one clear line.
    """
    found = faults_of(tmp_path / "none.toml")
    assert str(found) == f"{tmp_path}/none.toml:1:1: the file cannot be read: no such file or directory"
    assert "is a directory" in str(faults_of(tmp_path))


def test_a_file_that_is_not_utf_8_is_a_fault(tmp_path: Path) -> None:
    """
    The byte's place is told, counted in characters.
    """
    path = tmp_path / "latin.toml"
    path.write_bytes("[log]\n# é ".encode() + b"\xe9\n")
    assert [str(fault) for fault in faults_of(path).faults] == ["2:5: TOML is UTF-8, and the byte 0xE9 here is not"]


def test_deep_nesting_is_a_fault() -> None:
    """
    Brackets beyond what can be parsed are refused, not a crash.
    """
    with pytest.raises(ConfigErrors) as raised:
        parse("a = " + "[" * 100_000, "deep.toml", {})
    assert len(raised.value.faults) == 1


def test_one_mistake_is_one_fault() -> None:
    """
    A misspelt key does not also count as a missing one, nor what depends on it as wrong.
    """
    text = (
        '[[auth.issuer]]\nisuer = "a"\naudience = "b"\nalgorithms = "HS256"\nsecrt = "' + "x" * 32 + '"\n'
        '[upstream.players]\nhtp = "http://h:1"\n[[route]]\npath = "/a"\nupstraem = "players"\n'
    )
    with pytest.raises(ConfigErrors) as raised:
        parse(text, "a.toml", {})
    assert [fault.path for fault in raised.value.faults] == [
        "auth.issuer[0].isuer",
        "auth.issuer[0].secrt",
        "upstream.players.htp",
        "route[0].upstraem",
    ]


def test_paths_are_written_as_in_toml() -> None:
    """
    Keys that are not bare are quoted.
    """
    assert dotted(("route", 2, "set", "user id")) == 'route[2].set."user id"'
    assert dotted(('a"\\',)) == '"a\\"\\\\"'
    assert str(Fault(3, 4, "", "wrong")) == "3:4: wrong"

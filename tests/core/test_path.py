"""
The canonical path: one spelling of each, and none that servers read differently.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core import path as path_module
from gateway.core.path import REFUSALS, Target, canonical, encode_segment
from gateway.core.problems import Problem

DOCS = Path(__file__).resolve().parent.parent.parent / "docs" / "paths.md"

READ = [
    (b"/", b"/", ("",)),
    (b"/a", b"/a", ("a",)),
    (b"/a/", b"/a/", ("a", "")),
    (b"/a/b.c/~d_e-f", b"/a/b.c/~d_e-f", ("a", "b.c", "~d_e-f")),
    (b"/!$&'()*+,=:@", b"/!$&'()*+,=:@", ("!$&'()*+,=:@",)),
    (b"/%41%7e%2d", b"/A~-", ("A~-",)),
    (b"/%e2%82%ac", b"/%E2%82%AC", ("€",)),
    (b"/caf%C3%A9", b"/caf%C3%A9", ("café",)),
    (b"/a%20b", b"/a%20b", ("a b",)),
    (b"/100%25", b"/100%25", ("100%",)),
    (b"/%3Aa:b", b"/%3Aa:b", (":a:b",)),
    (b"/a%3Bb", b"/a%3Bb", ("a;b",)),
    (b"/a%3Fb%23", b"/a%3Fb%23", ("a?b#",)),
    (b'/[a]|{b}^<c>"`', b"/%5Ba%5D%7C%7Bb%7D%5E%3Cc%3E%22%60", ('[a]|{b}^<c>"`',)),
    (b"/.", b"/", ("",)),
    (b"/./a", b"/a", ("a",)),
    (b"/a/.", b"/a/", ("a", "")),
    (b"/a/..", b"/", ("",)),
    (b"/a/b/../c", b"/a/c", ("a", "c")),
    (b"/a/b/..", b"/a/", ("a", "")),
    (b"/a/../b/../c", b"/c", ("c",)),
    (b"//a//b//", b"/a/b/", ("a", "b", "")),
    (b"/.well-known/x", b"/.well-known/x", (".well-known", "x")),
    (b"/.../..a/a..", b"/.../..a/a..", ("...", "..a", "a..")),
    (b"/a%2fb", b"/a%2Fb", ("a/b",)),
]


@pytest.mark.parametrize(("target", "path", "segments"), READ)
def test_targets_have_one_form(target: bytes, path: bytes, segments: tuple[str, ...]) -> None:
    """
    A target that is accepted has the path and the segments that the rules give it.
    """
    read = canonical(target)
    assert (read.path, read.segments, read.query, read.raw) == (path, segments, b"", target)


# The ways around a path check that scanners and reports know, each aimed at /admin from outside it.
TRICKS = [
    (b"/public/../../admin", "above_root"),
    (b"/..", "above_root"),
    (b"/../admin", "above_root"),
    (b"/./../admin", "above_root"),
    (b"//../admin", "above_empty"),
    (b"/public//../admin", "above_empty"),
    (b"/public/%2e%2e/admin", "encoded_dot"),
    (b"/public/%2E%2E/admin", "encoded_dot"),
    (b"/public/.%2e/admin", "encoded_dot"),
    (b"/public/%2e./admin", "encoded_dot"),
    (b"/public/%2e/admin", "encoded_dot"),
    (b"/public/..%2fadmin", "encoded_dot"),
    (b"/public/x%2f..%2f..%2fadmin", "encoded_dot"),
    (b"/public%2f..%2fadmin", "encoded_dot"),
    (b"/public/%2e%2e%2fadmin", "encoded_dot"),
    (b"/public/..;/admin", "path_parameter"),
    (b"/public/..;a=b/admin", "path_parameter"),
    (b"/admin;jsessionid=1", "path_parameter"),
    (b"/;/admin", "path_parameter"),
    (b"/public/..%3b/admin", "encoded_dot"),
    (b"/public/.%3Ba/admin", "encoded_dot"),
    (b"/public\\..\\admin", "backslash"),
    (b"/public/..\\admin", "backslash"),
    (b"/public/..%5cadmin", "backslash"),
    (b"/public%5C..%5Cadmin", "backslash"),
    (b"/public/%252e%252e/admin", "double_encoding"),
    (b"/public/..%252fadmin", "double_encoding"),
    (b"/public/%25%32%65%25%32%65/admin", "double_encoding"),
    (b"/%2561dmin", "double_encoding"),
    (b"/public/%c0%ae%c0%ae/admin", "not_utf8"),
    (b"/public/..%c0%afadmin", "not_utf8"),
    (b"/public/%e0%80%ae%e0%80%ae/admin", "not_utf8"),
    (b"/public/%f8%80%80%80%ae/admin", "not_utf8"),
    (b"/%ed%a0%80", "not_utf8"),
    (b"/caf%e9", "not_utf8"),
    (b"/public/%u002e%u002e/admin", "bad_escape"),
    (b"/public/%%32%65/admin", "bad_escape"),
    (b"/public/%2", "bad_escape"),
    (b"/public/%zz", "bad_escape"),
    (b"/public/..%ef%bc%8fadmin", "lookalike"),
    (b"/public/%ef%bc%8e%ef%bc%8e/admin", "lookalike"),
    (b"/public/%e2%80%a5/admin", "lookalike"),
    (b"/public/.%ef%bc%8e/admin", "lookalike"),
    (b"/public/%ef%bc%85%32%65/admin", "lookalike"),
    (b"/public/..%ef%bc%bcadmin", "lookalike"),
    (b"/admin%00", "control"),
    (b"/public/..%00/admin", "control"),
    (b"/admin%0d%0aX:1", "control"),
    (b"/admin%09", "control"),
    (b"/admin%7f", "control"),
    (b"/admin%c2%85", "control"),
    (b"/admin#", "fragment"),
    (b"/public#/../admin", "fragment"),
    (b"/a?b#c", "fragment"),
    (b"/adm\xc3\xadn", "not_ascii"),
    (b"/a b", "not_ascii"),
    (b"/a\tb", "not_ascii"),
    (b"/a\x00", "not_ascii"),
    (b"/a?b\x00", "not_ascii"),
    (b"/a?b c", "not_ascii"),
    (b"admin", "target_form"),
    (b"http://host/admin", "target_form"),
    (b"host:443", "target_form"),
    (b"*", "target_form"),
    (b"", "target_form"),
    (b"?a", "target_form"),
    (b"\\admin", "target_form"),
]


@pytest.mark.parametrize(("target", "reason"), TRICKS)
def test_tricks_are_refused(target: bytes, reason: str) -> None:
    """
    Each known way around a path check is refused with its own reason.
    """
    with pytest.raises(Problem) as caught:
        canonical(target)
    assert caught.value.reason == reason
    assert caught.value.detail == REFUSALS[reason]
    assert caught.value.kind.code == (
        "bad_request" if reason in ("target_form", "not_ascii", "fragment") else "bad_path"
    )


def test_query_passes_as_it_came() -> None:
    """
    The query is neither decoded nor judged but for being visible ASCII, and never part of the path.
    """
    read = canonical(b"/a/../b?x=%2e%2e/;\\%00&y?#".removesuffix(b"#"))
    assert (read.path, read.query) == (b"/b", b"x=%2e%2e/;\\%00&y?")
    assert canonical(b"/a?").query == b""


def test_encoded_slash_is_flagged() -> None:
    """
    A path with an encoded slash says so, since only a route can know whether that is safe.
    """
    assert canonical(b"/a%2Fb").encoded_slash
    assert canonical(b"/a%2Fb?c").encoded_slash
    assert not canonical(b"/a/b").encoded_slash


def test_memory_of_targets_is_bounded() -> None:
    """
    However many different targets come, only so many are remembered, and no long one.
    """
    for number in range(path_module._CACHE_SIZE * 2):
        canonical(b"/%d" % number)
    long = b"/" + b"x" * 1000
    canonical(long)
    assert len(path_module._cache) <= path_module._CACHE_SIZE
    assert long not in path_module._cache


def test_query_is_not_remembered() -> None:
    """
    A query, which may hold a token, stays in no cache and in no repr.
    """
    read = canonical(b"/remembered?access_token=secret")
    assert not any(b"secret" in target for target in path_module._cache)
    assert "secret" not in repr(read)


def accepted(target: bytes) -> Target | None:
    try:
        return canonical(target)
    except Problem:
        return None


awkward = st.lists(
    st.one_of(
        st.sampled_from(
            [b"/", b"//", b".", b"..", b"%2e", b"%2F", b"%5c", b"%25", b"25", b"2e", b";", b"\\", b"%00", b"a", b"%41"]
        ),
        st.sampled_from(
            [b"%c3%a9", b"%ef%bc%8f", b"%C0%AF", b":", b"[", b"%", b"?", b"#", b"\xff", b"%3B", b"%e2%80%a5"]
        ),
        st.binary(max_size=3),
    ),
    max_size=12,
).map(lambda parts: b"/" + b"".join(parts))


@given(awkward)
@example(b"/%25%32%65")
@example(b"/a/..//..")
def test_canonical_is_idempotent(target: bytes) -> None:
    """
    Reading a canonical path again changes nothing.
    """
    read = accepted(target)
    if read is not None:
        again = canonical(read.path)
        assert (again.path, again.segments, again.encoded_slash) == (read.path, read.segments, read.encoded_slash)


@given(awkward)
def test_accepted_paths_are_harmless(target: bytes) -> None:
    """
    Whatever is accepted holds no dot segment, no empty segment, no separator but the slash, and
    the same after a backend decoded it once more.
    """
    read = accepted(target)
    if read is None:
        return
    assert re.fullmatch(rb"/[A-Za-z0-9\-._~!$&'()*+,=:@/%]*", read.path)
    assert read.segments == tuple(unquote(text) for text in read.path.decode().split("/")[1:])
    assert all(read.segments[:-1])
    for text in read.segments:
        assert not {".", ".."} & {part.partition(";")[0] for part in re.split(r"[/\\]", text)}
        assert unquote(text) == text
        assert not re.search(r"[\x00-\x1f\\]", text)


@given(st.text(min_size=1))
def test_segments_survive_a_round_trip(text: str) -> None:
    """
    A text that is accepted as a segment comes out as it went in.
    """
    try:
        encoded = encode_segment(text)
    except UnicodeEncodeError:
        return
    read = accepted(b"/" + encoded)
    if read is not None:
        assert read.segments == (text,)


@given(st.binary())
def test_any_bytes_are_judged(target: bytes) -> None:
    """
    Whatever bytes come, the answer is a target or a problem with a listed reason.
    """
    reason = None
    try:
        canonical(target)
    except Problem as problem:
        reason = problem.reason
    assert reason is None or reason in REFUSALS


def test_docs_list_every_reason() -> None:
    """
    The page for operators names exactly the reasons there are.
    """
    listed = set(re.findall(r"^\| .*\| `([a-z0-9_]+)` \|$", DOCS.read_text(), re.MULTILINE))
    assert listed == set(REFUSALS)

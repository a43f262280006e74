"""
From the message that came back to the answer.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.core.transcoding.support import from_text

from gateway.core.problems import Problem, problem_body
from gateway.core.transcoding.encode import JsonStyle
from gateway.core.transcoding.http_rule import BadRule
from gateway.core.transcoding.respond import Answer, AnswerOptions, Responder
from gateway.upstream.descriptors import Schema

LIBRARY = "test.library.v1.Library"


def responder(schema: Schema, method: str, response_body: str = "", **options: Any) -> Responder:
    """Make the responder of a method of the library."""
    return Responder(
        schema.method(f"{LIBRARY}/{method}").descriptor,
        schema.codecs,
        response_body=response_body,
        options=AnswerOptions(**options),
        where="here",
    )


def message(schema: Schema, method: str, text: str) -> Any:
    """Make a response of a method of the library."""
    return from_text(schema.method(f"{LIBRARY}/{method}").response, text, schema)


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("", 'next_page_token: "t"', {"nextPageToken": "t"}),
        ("books", 'books { title: "a" } books {}', [{"title": "a"}, {}]),
        ("books", "", []),
        ("first", 'first { title: "a" }', {"title": "a"}),
        ("first", "", None),
        ("first.title", 'first { title: "a" }', "a"),
        ("first.title", "", ""),
        ("first.author", "first { author {} }", {}),
        ("first.author", "first {}", None),
        ("first.page_count", "first { page_count: 5 }", "5"),
        ("first.genre", "first { genre: PROSE }", "PROSE"),
        ("total", "total: 0", 0),
        ("total", "", None),
        ("by_name", 'by_name { key: "k" value { title: "a" } }', {"k": {"title": "a"}}),
    ],
)
def test_part_of_a_message(path: str, text: str, expected: Any, schema: Schema) -> None:
    """
    A field of a message is sent alone; where it is absent, null says so.
    """
    made = responder(schema, "ListBooks", unwrap=path).answer(message(schema, "ListBooks", text))
    assert made[:2] == (200, b"application/json")
    assert json.loads(made.body) == expected
    if "." not in path:
        by_rule = responder(schema, "ListBooks", response_body=path)
        assert by_rule.answer(message(schema, "ListBooks", text)) == made


def test_style_holds_for_parts(schema: Schema) -> None:
    """
    A part of a message is written in the route's style.
    """
    method = schema.method(f"{LIBRARY}/ListBooks").descriptor
    made = Responder(
        method, schema.codecs, JsonStyle(proto_names=True, int64="number"), options=AnswerOptions(unwrap="books")
    )
    answer = made.answer(message(schema, "ListBooks", "books { page_count: 5 }"))
    assert json.loads(answer.body) == [{"page_count": 5}]


def test_status_of_a_success(schema: Schema) -> None:
    """
    A success has the status that is chosen for it; 204 has no body.
    """
    book = message(schema, "GetBook", 'title: "a"')
    assert responder(schema, "GetBook", status=201).answer(book).status == 201
    assert responder(schema, "GetBook", status=204).answer(book) == Answer(204, b"", b"")


def test_http_body(schema: Schema) -> None:
    """
    An HttpBody is sent as it is, with its content type, whole or as a field; one that no header can hold is bytes.
    """
    whole = responder(schema, "Import")
    assert whole.raw
    sent = message(schema, "Import", 'content_type: "text/csv" data: "\\377"')
    assert whole.answer(sent) == Answer(200, b"text/csv", b"\xff")
    part = responder(schema, "Upload", response_body="file")
    assert part.raw
    sent = message(schema, "Upload", 'file { content_type: "image/png" data: "PNG" }')
    assert part.answer(sent) == Answer(200, b"image/png", b"PNG")
    for strange in ('content_type: "a/b\\r\\nX: y"', 'content_type: "\\303\\251/x"', "", 'content_type: "x"'):
        sent = message(schema, "Import", f'{strange} data: "x"')
        assert whole.answer(sent).content_type == b"application/octet-stream"


@pytest.mark.parametrize(
    ("options", "text", "expected"),
    [
        ({"ok": "ok"}, "ok: true", None),
        ({"ok": "ok"}, "ok: false", (422, {}, "")),
        ({"ok": "ok", "error": "error", "message": "reason"}, 'error: LENT reason: "r"', (422, {"error": "LENT"}, "r")),
        ({"ok": "ok", "error": "error"}, "ok: true error: LENT", None),
        ({"error": "error"}, "error: LENT", (422, {"error": "LENT"}, "")),
        ({"error": "error"}, "", None),
        ({"error": "error"}, "error: 77", (422, {"error": "77"}, "")),
        ({"error": "code"}, 'code: "GONE"', (422, {"error": "GONE"}, "")),
        ({"error": "error", "statuses": {"LENT": 409}}, "error: LENT", (409, {"error": "LENT"}, "")),
        ({"error": "error", "statuses": {"LENT": 409}}, "error: NOT_YOURS", (422, {"error": "NOT_YOURS"}, "")),
        ({"error": "error", "statuses": {"*": 400}}, "error: NOT_YOURS", (400, {"error": "NOT_YOURS"}, "")),
    ],
)
def test_refusals_inside_of_ok(options: dict[str, Any], text: str, expected: Any, schema: Schema) -> None:
    """
    An answer that says in a field that it refused is a status and a problem.
    """
    made = responder(schema, "Lend", **options)
    answered = message(schema, "Lend", text)
    if expected is None:
        assert made.answer(answered).status == 200
        return
    with pytest.raises(Problem) as refused:
        made.answer(answered)
    status, extra, detail = expected
    problem = refused.value
    assert (problem.kind.code, problem.kind.status) == ("call_refused", status)
    assert (problem.extra or {}, problem.detail) == (extra, detail)
    assert json.loads(problem_body(problem))["status"] == status


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"unwrap": "nope"}, "unwrap 'nope'"),
        ({"unwrap": "books.title"}, "books is repeated"),
        ({"response_body": "nope"}, "response_body 'nope'"),
        ({"ok": "next_page_token"}, "ok 'next_page_token' is no boolean"),
        ({"error": "total"}, "error 'total' is neither an enum nor a string"),
        ({"message": "books"}, "message 'books' is no string"),
        ({"status": 404}, "the status of a success is 404"),
        ({"statuses": {"X": 200}}, "the status for 'X' is 200"),
    ],
)
def test_impossible_options(options: dict[str, Any], words: str, schema: Schema) -> None:
    """
    Options that do not fit the response are refused when they are read.
    """
    with pytest.raises(BadRule, match=words):
        responder(schema, "ListBooks", **options)


def test_message_without_json_form_is_the_backends_fault(schema: Schema) -> None:
    """
    A message that has no JSON form is 502, whole or in part, and its content is not told.
    """
    bad = "time { seconds: 999999999999 }"
    method = schema.method("test.v1.Echo/EchoKnown")
    for path in ("", "time"):
        made = Responder(method.descriptor, schema.codecs, options=AnswerOptions(unwrap=path))
        with pytest.raises(Problem) as failed:
            made.answer(from_text(method.response, bad, schema))
        assert failed.value.kind.code == "upstream_malformed"
        assert not failed.value.detail

"""
One rule compiled against one method: a request's path, query and body to the message of the call.

Each field of a request has one source. What the path binds, a body may repeat but not contradict;
what ``set`` fills, a client may not even mention. So ``/players/me`` with ``{"playerId": "other"}``
is refused, whichever of the two the backend would have believed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import unquote

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from gateway.core.problems import Problem
from gateway.core.template import BadTemplate, Template, Variable, parse
from gateway.core.transcoding.assigned import Assigned, mention_of
from gateway.core.transcoding.decode import Decoders, check_required, nullable
from gateway.core.transcoding.fields import HTTP_BODY, WELL_KNOWN, BadPath, choice_of, field_at, is_map, message_of
from gateway.core.transcoding.http_rule import BadRule, HttpRule
from gateway.core.transcoding.json_text import MOST_VALUES, read_json
from gateway.core.transcoding.mask import mask_field, mask_paths
from gateway.core.transcoding.query import Ignored, Leaf, QueryReader, leaf
from gateway.core.transcoding.rejection import Findings, Unfit

__all__ = ["Binding", "RequestOptions", "Unescape", "is_json"]

Unescape = Literal["reserved", "slash", "all"]
"""
What stays percent-encoded in a variable of several segments: all reserved characters (Envoy's
default), only the slash (as http.proto has it), nothing. One of a single segment is decoded wholly.
"""

_NEVER: Final = "cannot be given by a client"
_NO_BODY_METHODS: Final = frozenset((b"GET", b"HEAD"))
_IMPOSSIBLE_METHODS: Final = frozenset((b"CONNECT", b"TRACE"))

_escaped_but_slash = re.compile(r"%(?!2F)[0-9A-F]{2}")
_json_type = re.compile(
    rb"application/(?:[a-z0-9!#$&^_.+-]+\+)?json[ \t]*(?:;[ \t]*(?:charset=\"?utf-8\"?[ \t]*)?)?", re.IGNORECASE
).fullmatch


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """
    How strictly requests are read.

    Attributes:
        ignore_unknown_fields: Members of a body that are no field are dropped instead of refused.
        ignore_unknown_parameters: Likewise query parameters.
        ignore_parameters: Parameters always dropped; ``utm_*`` stands for a beginning.
        ignore_body: A body that the rule does not take is dropped instead of refused.
        body_with_get: GET may have a body.
        most_parameters: Of one query.
        most_values: Of one body: each costs some microseconds, and the reactor waits.
        unescape: See ``Unescape``.
    """

    ignore_unknown_fields: bool = False
    ignore_unknown_parameters: bool = False
    ignore_parameters: tuple[str, ...] = ()
    ignore_body: bool = False
    body_with_get: bool = False
    most_parameters: int = 100
    most_values: int = MOST_VALUES
    unescape: Unescape = "reserved"


def is_json(content_type: bytes) -> bool:
    """
    Tell whether *content_type* is JSON in UTF-8. An absent one is not: a page of another site can send that unasked.
    """
    return content_type == b"application/json" or _json_type(content_type) is not None


class Binding:
    """
    A compiled rule.

    Args:
        method: The method called.
        rule: How it is reached. An empty path is none: a call that is made otherwise.
        decoders: Of the method's pool, with ``ignore_unknown`` as the options say.
        set_fields: Field paths that the gateway fills.
        unbound: Variables of the path that need not be fields: expressions read them.
        where: For ``BadRule``.

    Attributes:
        call: ``/pkg.Service/Method``.
        template: The parsed path; None without one.
        raw_body: The body is a ``google.api.HttpBody``: any bytes of any type.
        takes_body: The rule has a body.

    Raises:
        BadRule: the rule does not fit the method.
    """

    __slots__ = (
        "_assigned",
        "_body",
        "_closed",
        "_fill",
        "_kind",
        "_mask",
        "_put",
        "_query",
        "_variables",
        "call",
        "method",
        "options",
        "raw_body",
        "rule",
        "set_fields",
        "takes_body",
        "template",
        "where",
    )

    def __init__(
        self,
        method: MethodDescriptor,
        rule: HttpRule,
        decoders: Decoders,
        *,
        set_fields: tuple[str, ...] = (),
        options: RequestOptions | None = None,
        unbound: frozenset[str] = frozenset(),
        where: str = "",
    ) -> None:
        self.method = method
        self.rule = rule
        self.set_fields = set_fields
        self.options = options or RequestOptions()
        self.where = where
        self.call = f"/{method.containing_service.full_name}/{method.name}"
        self.takes_body = bool(rule.body)
        descriptor = method.input_type
        self._kind = GetMessageClass(descriptor)
        if method.client_streaming:
            raise BadRule(f"{self.call[1:]} takes a stream, which plain HTTP cannot send: use the WebSocket", where)
        if self.takes_body and rule.methods & _NO_BODY_METHODS and not self.options.body_with_get:
            raise BadRule("GET has no body; leave body out, so that the fields come from the query", where)
        if rule.methods & _IMPOSSIBLE_METHODS:
            raise BadRule("CONNECT and TRACE are never routed", where)
        self.template = self._template() if rule.path else None
        body = self._body_field()
        self._body: FieldDescriptor | None = body
        self._fill = decoders.fill(descriptor)
        self._put = decoders.put(body) if body is not None else None
        filled = descriptor if body is None else body.message_type
        self.raw_body = self.takes_body and filled is not None and filled.full_name == HTTP_BODY
        variables = [] if self.template is None else [v for v in self.template.variables if v.name not in unbound]
        leaves = [(variable, self._leaf(variable)) for variable in variables]
        self._check_apart([variable.name for variable in variables])
        self._assigned = Assigned(descriptor, set_fields, decoders) if set_fields else None
        closed = self._closed_paths([variable.name for variable in variables])
        self._variables = tuple(
            (variable, found, mention_of(descriptor, found.path, rule.body)) for variable, found in leaves
        )
        self._closed = tuple(
            (mention, reason)
            for path, reason in closed.items()
            if (mention := mention_of(descriptor, path, rule.body)) is not None
        )
        self._mask = self._mask_field(body, set(closed) | {found.path for _, found in leaves})
        closed |= {variable.name: "comes from the path" for variable in variables}
        if rule.body:
            closed[rule.body.replace("*", "")] = "comes from the body of this call, not from its query"
        self._query = QueryReader(
            descriptor,
            closed=closed,
            ignored=Ignored(self.options.ignore_parameters),
            ignore_unknown=self.options.ignore_unknown_parameters,
            most=self.options.most_parameters,
        )

    def __repr__(self) -> str:
        return f"Binding({self.call!r}, {self.rule.path!r})"

    def message(
        self,
        params: Mapping[str, str],
        query: bytes = b"",
        body: bytes = b"",
        content_type: bytes = b"",
        set_values: Mapping[str, Any] | None = None,
    ) -> Message:
        """
        Make the message of one call.

        Args:
            params: The template's variables, as ``core.routes`` gives them.
            query: What follows ``?``, as received.
            body: All of it; empty is none.
            content_type: As received; empty is none.
            set_values: A value for each of ``set_fields``; None leaves it unset.

        Raises:
            Rejected: it makes no message.
            Problem: ``media_type``, the body is of another type than JSON.
        """
        findings = Findings()
        message = self._kind()
        given = self._read_body(message, body, content_type, findings) if body else None
        if query:
            self._query.read(query, message, findings)
        if self._variables:
            findings.source = "path"
            self._read_path(params, message, given, findings)
        if self._mask is not None and self._body is not None and type(given) is dict and not findings.found:
            self._derive_mask(message, given)
        findings.close()
        if self._assigned is not None:
            self._assigned.apply(message, set_values or {}, findings)
        if not message.IsInitialized():
            findings.source = "body"
            check_required(message, findings)
        findings.close()
        return message

    def _read_body(self, message: Any, body: bytes, content_type: bytes, findings: Findings) -> Any:
        """Fill *message*; returns the body's JSON value."""
        if self.raw_body:
            inner = message if self._body is None else getattr(message, self._body.name)
            inner.content_type = content_type.decode("ascii", "replace")
            inner.data = body
            return None
        if not self.takes_body:
            if not self.options.ignore_body:
                findings.add(None, "is not taken: this call has none")
            return None
        if not is_json(content_type):
            raise Problem(
                "media_type", "The body must be JSON: application/json.", headers=((b"Accept", b"application/json"),)
            )
        value = read_json(body, self.options.most_values)
        for mention, reason in self._closed:
            found = mention.find(value)
            if found is not None:
                findings.add(found, reason)
        if self._body is None:
            self._fill(value, message, None, findings)
        elif value is not None or nullable(self._body):
            assert self._put is not None
            self._put(message, value, None, findings)
        return value

    def _read_path(self, params: Mapping[str, str], message: Any, given: Any, findings: Findings) -> None:
        for variable, field, mention in self._variables:
            text = params[variable.name]
            if not variable.single and "%" in text:
                text = self._unescaped(text)
            mentioned = mention.find(given) if mention is not None and given is not None else None
            try:
                if mentioned is not None:
                    alone = self._kind()
                    field.set(alone, text)
                    if field.value(alone) != field.value(message):
                        findings.source = "body"
                        findings.add(mentioned, "is not what the path says")
                        findings.source = "path"
                        continue
                field.set(message, text)
            except Unfit as unfit:
                findings.add(variable.name, str(unfit))

    def _unescaped(self, text: str) -> str:
        mode = self.options.unescape
        if mode == "reserved":
            return text
        # Whatever is still escaped was kept for being reserved: an escape of an escape never gets this far.
        return unquote(text) if mode == "all" else _escaped_but_slash.sub(lambda found: unquote(found[0]), text)

    def _derive_mask(self, message: Any, given: dict[str, Any]) -> None:
        assert self._mask is not None
        assert self._body is not None
        name, without = self._mask
        if not message.HasField(name):
            mask = getattr(message, name)
            mask.SetInParent()
            mask.paths.extend(mask_paths(message_of(self._body), given, without))

    # What follows happens once, when the rule is compiled.

    def _bad(self, what: str) -> BadRule:
        return BadRule(what, self.where)

    def _template(self) -> Template:
        try:
            return parse(self.rule.path)
        except BadTemplate as bad:
            raise self._bad(f"path {bad}") from None

    def _field(self, path: str, what: str) -> tuple[tuple[FieldDescriptor, ...], FieldDescriptor]:
        try:
            return field_at(self.method.input_type, path)
        except BadPath as bad:
            raise self._bad(f"{what} {path!r}: {bad}") from None

    def _body_field(self) -> FieldDescriptor | None:
        name = self.rule.body
        if name in ("", "*"):
            return None
        if "." in name:
            raise self._bad(f"body {name!r}: only a field of the request itself can be the body")
        _, field = self._field(name, "body")
        if field.is_repeated:
            kind = "a map" if is_map(field) else "repeated"
            raise self._bad(f"body {name!r} is {kind}; a body fills one single field")
        return field

    def _leaf(self, variable: Variable) -> Leaf:
        name = variable.name
        if self.method.input_type.full_name == HTTP_BODY:
            raise self._bad(f"variable {name!r}: the request is an HttpBody, which only a body fills")
        parents, field = self._field(name, "variable")
        found = leaf(parents, field)
        if isinstance(found, str):
            raise self._bad(f"variable {name!r} {found}")
        if found.repeated:
            raise self._bad(f"variable {name!r} is repeated, and a path has one value for it")
        if name == self.rule.body:
            raise self._bad(f"{name!r} is bound by the path and by the body")
        return found

    def _check_apart(self, variables: list[str]) -> None:
        """See that each field has one source."""
        named = [(path, "the path") for path in variables] + [(path, "set") for path in self.set_fields]
        for path in self.set_fields:
            self._field(path, "set")
            if path == self.rule.body:
                raise self._bad(f"{path!r} is filled by set and by the body")
        for at, (path, source) in enumerate(named):
            for other, other_source in named[:at]:
                if f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}."):
                    both = f"{other_source} and by {source}" if source != other_source else f"{source} twice"
                    raise self._bad(f"{path!r} is filled by {both}")
                if other in self._rivals(path):
                    raise self._bad(f"{path!r} and {other!r} exclude each other: they are members of one oneof")

    def _rivals(self, path: str) -> Iterator[str]:
        """List the paths that are unset when *path* is set, or one of its parents."""
        parents, field = self._field(path, "field")
        before = ""
        for step in (*parents, field):
            if choice_of(step) is not None and step.containing_oneof is not None:
                yield from (before + other.name for other in step.containing_oneof.fields if other.name != step.name)
            before += f"{step.name}."

    def _closed_paths(self, variables: list[str]) -> dict[str, str]:
        """Paths that neither query nor body may name, with the reason."""
        closed = dict.fromkeys(self.set_fields, _NEVER)
        for path in (*self.set_fields, *variables):
            for rival in self._rivals(path):
                closed.setdefault(rival, f"excludes {path}, which is given, too" if path in variables else _NEVER)
        return closed

    def _mask_field(self, body: FieldDescriptor | None, bound: set[str]) -> tuple[str, frozenset[str]] | None:
        """The field that takes a derived mask, and the resource's paths that are bound elsewhere."""
        if self.rule.methods != {b"PATCH"} or body is None or body.message_type is None:
            return None
        name = mask_field(self.method.input_type)
        if (
            body.message_type.full_name in WELL_KNOWN
            or name is None
            or any(path.split(".")[0] == name for path in bound)
        ):
            return None
        inside = f"{body.name}."
        return name, frozenset(path.removeprefix(inside) for path in bound if path.startswith(inside))

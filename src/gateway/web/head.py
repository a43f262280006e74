"""
The head of a request, read strictly (RFC 9110, RFC 9112).

llhttp (``httptools``) splits the head and refuses what its grammar refuses: bare CR or LF,
control bytes, obs-fold, white space before a colon, names that are no tokens. What it lets
pass and must not reach a backend is refused here. Tried with httptools 0.9, it accepts

- several spaces between the parts of the request line, a missing version, ``HTTP/0.9`` and
  ``HTTP/2.0``, RTSP and ICE, and any number of empty lines (bare LF too) before it;
- absolute-form and ``*`` for any method, fragments, CONNECT and TRACE;
- ``Transfer-Encoding: gzip, chunked``, and any transfer coding on HTTP/1.0;
- no ``Host``, two of them, and any value in them;
- and it keeps white space at the end of a value.

A verdict depends on the bytes alone, never on how they were split: of two faults the earlier
one counts, and the same is found by ``doom`` before a head is complete.

llhttp calls back for each header line, which costs more than to read them; so it only judges, and
one search takes the lines out of what it found good. Most heads are spared even that: a client says
the same about itself with every request, so header blocks that neither frame nor upgrade are
remembered with what they mean, and only the request line is new.
"""

from __future__ import annotations

import re
from typing import Any, Final

import httptools

from gateway.core.message import CHUNKED, Header, RequestHead, values_of

__all__ = ["METHODS", "UNIQUE", "HeadReader", "Refused"]

METHODS: Final = frozenset(
    b"GET HEAD POST PUT PATCH DELETE OPTIONS QUERY PROPFIND PROPPATCH MKCOL COPY MOVE LOCK UNLOCK REPORT SEARCH".split()
)
"""Methods taken; any other token is a 501, CONNECT and TRACE among them."""

UNIQUE: Final = frozenset(
    b"host content-length transfer-encoding expect authorization proxy-authorization content-type "
    b"content-location origin idempotency-key".split()
)
"""Names of which a second line is refused, because two readers may each believe another one."""

MAX_LENGTH_DIGITS = 19
LINE_ALLOWANCE = 64
"""What a request line may hold besides its target."""

_KEEP: Final = frozenset((b"keep-alive", b"Keep-Alive"))
_FRAMING: Final = frozenset((b"connection", b"content-length", b"transfer-encoding", b"expect"))
_ONE_REQUEST: Final = frozenset(
    b"content-length transfer-encoding expect upgrade proxy-connection traceparent x-request-id idempotency-key".split()
)
"""Names of which a block is not remembered: they speak of one body, or are different in each request."""
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VERSION: Final = re.compile(rb"HTTP/[0-9]\.[0-9]")
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_HOST: Final = re.compile(
    rb"(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})+(?::[0-9]{0,5})?"
    rb"|\[(?:[0-9A-Fa-f:.]{2,45})\](?::[0-9]{0,5})?"
)
_new_parser: Final[Any] = httptools.HttpRequestParser
_REMEMBERED = 4096
"""Spellings of names, and hosts, remembered as good; enough for honest clients, bounded for others."""
_BLOCKS_REMEMBERED = 1024
_LONGEST_BLOCK = 2048
_MOST_LINES = 32
"""Bytes. With what is made of them, blocks take some 10 MB at most, and 3 MB where clients are honest."""

_HEADER: Final = re.compile(rb"([^:\r\n]++):[ \t]*+([^\r\n]*+)\r\n")
"""A line that llhttp found good; white space at its end is still there."""
_BODILESS: Final = re.compile(rb"(GET|HEAD|DELETE|OPTIONS|POST|PUT|PATCH) (/[!\"$-~]*+) HTTP/1\.1\r\n")
"""A request line of which nothing is left to decide but the target's length."""


class Refused(Exception):
    """
    A request that is not taken.

    Attributes:
        status: What to answer.
        code: The kind of problem (``core.problems``).
    """

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code


class _Names(dict[bytes, bytes]):
    """Name as received to its lower case; empty where it is to be dropped. Forgets nothing, and learns so many."""

    def __missing__(self, name: bytes) -> bytes:
        # Backends that follow CGI cannot tell X_User_Id from X-User-Id.
        key = b"" if b"_" in name else name.lower()
        if len(self) < _REMEMBERED:
            self[name] = key
        return key


class _Block:
    """A header block that was read before."""

    __slots__ = ("fields", "headers", "memo")

    def __init__(self, headers: list[Header], fields: dict[bytes, bytes]) -> None:
        self.headers = headers
        self.fields = fields
        self.memo: dict[Any, Any] = {}


class HeadReader:
    """
    Turns the bytes of a whole head into a ``RequestHead``.

    What it remembers depends on bytes alone, so one reader serves every connection; the parser
    is made anew for each head (a quarter of a microsecond), because llhttp does carry things over:
    after ``Connection: close``, or while it waits for a body, it refuses what comes.

    Args:
        max_target: Longest target, in bytes.
        max_head: Largest head, its empty line included.
        max_headers: Most header lines.
    """

    # The parser looks for these; to find None is cheaper than to find nothing.
    on_message_begin = on_url = on_header = on_headers_complete = on_body = on_message_complete = None
    on_chunk_header = on_chunk_complete = None

    def __init__(self, *, max_target: int, max_head: int, max_headers: int) -> None:
        self.max_head = max_head
        self._max_target = max_target
        self._max_line = max_target + LINE_ALLOWANCE
        self._max_headers = max_headers
        self._names = _Names()
        self._hosts: set[bytes] = set()
        self._blocks: dict[bytes, _Block] = {}

    def read(self, data: bytes) -> RequestHead:
        """
        Read the head that *data* is: request line, header lines, empty line.

        Raises:
            Refused: with the earliest fault.
        """
        start = data.find(b"\n") + 1
        known = self._blocks.get(data[start:])
        if known is not None:
            line = _BODILESS.match(data)
            if line is not None and len(data) <= self.max_head:
                method, target = line.groups()
                if len(target) <= self._max_target:
                    return RequestHead(method, target, known.headers, known.fields, memo=known.memo)
        try:
            return self._read(data, start)
        except Refused as refused:
            raise (self.doom(data) or refused) from None

    def doom(self, data: bytes, seen: int = 0) -> Refused | None:
        """
        Tell whether *data*, the beginning of a head, can no longer become a good one.

        Looks only for what would otherwise wait for an end that may never come: a line or head
        that is too long, too many lines, a bare LF, a first byte that begins no method.

        Args:
            seen: So many bytes were looked at before and found good. What comes byte by byte
                must not cost a look at the whole each time.
        """
        length = len(data)
        within = length <= self.max_head and (length <= self._max_line or seen > self._max_line)
        if seen and within and data.find(b"\n", seen) < 0:
            return None
        first = data[:1]
        if first and not _TOKEN.match(first):
            return Refused(400, "tls_unexpected" if first == b"\x16" else "bad_request")
        faults = []
        end = data.find(b"\r\n\r\n")
        size = length if end < 0 else end + 4
        if size > self.max_head:
            faults.append((self.max_head, Refused(431, "head_too_large")))
        line = data.find(b"\r\n")
        if (size if line < 0 else line) > self._max_line:
            faults.append((self._max_line, Refused(414, "target_too_long")))
        bare = _BARE_LF.search(data, 0, size)
        if bare is not None:
            faults.append((bare.start(), Refused(400, "bad_request")))
        if data.count(b"\n", 0, size) > self._max_headers + (1 if end < 0 else 2):
            at = -1
            for _ in range(self._max_headers + 2):
                at = data.index(b"\n", at + 1)
            faults.append((at, Refused(431, "head_too_large")))
        return min(faults, key=lambda fault: fault[0])[1] if faults else None

    def _read(self, data: bytes, start: int) -> RequestHead:
        if len(data) > self.max_head:
            raise Refused(431, "head_too_large")
        method, target, minor = self._request_line(data[: data.find(b"\r\n")])
        parser: Any = _new_parser(self)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Said at the end of a good head with Upgrade; whether to change protocols is not llhttp's affair.
            pass
        except httptools.HttpParserError:
            # Framing that llhttp already found faulty, whatever it said before.
            raise Refused(400, "bad_request") from None
        headers: list[Header] = _HEADER.findall(data, start)
        lines = data.count(b"\n", start) - 1
        if lines != len(headers):
            # The two do not see the same lines: nobody can tell which are right.
            raise Refused(400, "bad_request")
        if lines > self._max_headers:
            raise Refused(431, "head_too_large")
        if b" \r\n" in data or b"\t\r\n" in data:
            headers = [(name, value.rstrip(b" \t")) for name, value in headers]
        names = self._names
        fields = {names[name]: value for name, value in headers}
        if fields.pop(b"", None) is not None:
            headers = [header for header in headers if names[header[0]]]
        if len(headers) != len(fields):
            self._check_repeated(headers)
        host = fields.get(b"host")
        if host is None or (host not in self._hosts and not self._good_host(host)):
            raise Refused(400, "bad_host")
        head = RequestHead(method, target, headers, fields, minor=minor, keep_alive=minor == 1)
        if not _FRAMING.isdisjoint(fields):
            self._frame(head)
        if (
            _ONE_REQUEST.isdisjoint(fields)
            and (b"connection" not in fields or fields[b"connection"] in _KEEP)
            and len(data) - start <= _LONGEST_BLOCK
            and lines <= _MOST_LINES
            and len(headers) == len(fields)
        ):
            self._remember(data[start:], head)
        return head

    def _remember(self, block: bytes, head: RequestHead) -> None:
        if len(self._blocks) >= _BLOCKS_REMEMBERED:
            self._blocks.clear()
        known = self._blocks[block] = _Block(head.headers, head.fields)
        head.memo = known.memo

    def _request_line(self, line: bytes) -> tuple[bytes, bytes, int]:
        parts = line.split(b" ")
        if len(parts) != 3:
            raise Refused(400, "bad_request")
        method, target, version = parts
        if version == b"HTTP/1.1":
            minor = 1
        elif version == b"HTTP/1.0":
            minor = 0
        elif _VERSION.fullmatch(version):
            raise Refused(505, "version_unsupported")
        else:
            raise Refused(400, "bad_request")
        if method not in METHODS:
            if _TOKEN.fullmatch(method):
                raise Refused(501, "method_unknown")
            raise Refused(400, "bad_request")
        if len(target) > self._max_target:
            raise Refused(414, "target_too_long")
        if (target[:1] != b"/" and (target != b"*" or method != b"OPTIONS")) or b"#" in target:
            raise Refused(400, "bad_request")
        return method, target, minor

    def _check_repeated(self, headers: list[Header]) -> None:
        seen = set()
        for name, _ in headers:
            key = name.lower()
            if key in seen and key in UNIQUE:
                raise Refused(400, "bad_host" if key == b"host" else "bad_request")
            seen.add(key)

    def _good_host(self, host: bytes) -> bool:
        if len(host) > 255 + 6 or not _HOST.fullmatch(host):
            return False
        if len(self._hosts) < _REMEMBERED:
            self._hosts.add(host)
        return True

    def _frame(self, head: RequestHead) -> None:
        """Settle body length, persistence, expectation and upgrade."""
        fields = head.fields
        coding = fields.get(b"transfer-encoding")
        length = fields.get(b"content-length")
        if coding is not None:
            if length is not None or head.minor == 0 or coding.lower() != b"chunked":
                raise Refused(400, "bad_request")
            head.body_length = CHUNKED
        elif length is not None:
            if not length.isdigit() or len(length) > MAX_LENGTH_DIGITS:
                raise Refused(400, "bad_request")
            head.body_length = int(length)
        if b"connection" in fields:
            self._persistence(head)
        expected = fields.get(b"expect")
        if expected is not None and head.minor == 1:
            if expected.lower() != b"100-continue":
                raise Refused(417, "expectation_failed")
            head.expect_continue = head.body_length != 0

    def _persistence(self, head: RequestHead) -> None:
        if head.minor == 1 and head.fields[b"connection"] in _KEEP and len(head.headers) == len(head.fields):
            return
        tokens = set()
        for value in values_of(head.headers, b"connection"):
            for part in value.split(b","):
                token = part.strip(b" \t").lower()
                if token and not _TOKEN.fullmatch(token):
                    raise Refused(400, "bad_request")
                tokens.add(token)
        if b"close" in tokens:
            head.keep_alive = False
        elif head.minor == 0:
            head.keep_alive = b"keep-alive" in tokens
        if b"upgrade" in tokens and head.minor == 1 and head.body_length == 0:
            asked = head.fields.get(b"upgrade", b"").split(b",")[0].strip(b" \t").lower()
            head.upgrade = asked or None

"""
The metrics of several processes as one answer: each series with the label that tells them apart.

Only the text that ``Metrics.render`` makes is read, so a look at each line's first signs is enough; a family
that several have stands once, as the format demands.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["merged"]

_HELP = b"# HELP "
_TYPE = b"# TYPE "
_EOF = b"# EOF"


def merged(label: str, texts: Iterable[tuple[str, bytes]], *, openly: bool = False) -> bytes:
    """
    Join *texts*, each with the value that its series get for *label*; *openly* if they are OpenMetrics.

    A series that has this label already, because it speaks of another process, keeps it.
    """
    name = label.encode("ascii")
    had = (b"{%b=" % name, b",%b=" % name)
    families: dict[bytes, tuple[list[bytes], list[bytes]]] = {}
    for value, text in texts:
        mark = b'%b="%b"' % (name, _escaped(value).encode("utf-8"))
        head: list[bytes] = []
        samples: list[bytes] = []
        known = True
        for line in text.splitlines():
            if line.startswith(_HELP):
                family = line[len(_HELP) :].partition(b" ")[0]
                known = family in families
                head, samples = families.setdefault(family, ([], []))
            if line == _EOF:
                continue
            if line.startswith(b"#"):
                if not known:
                    head.append(line)
            elif line:
                samples.append(_marked(line, mark, had))
    lines = [line for head, samples in families.values() for line in (*head, *samples)]
    return b"\n".join([*lines, _EOF, b""] if openly else [*lines, b""])


def _marked(line: bytes, mark: bytes, had: tuple[bytes, bytes]) -> bytes:
    # A metric's name has neither a space nor a brace: whichever comes first says whether there are labels.
    brace = line.find(b"{")
    space = line.find(b" ")
    if not 0 <= brace < space:
        return b"%b{%b}%b" % (line[:space], mark, line[space:])
    # A quote within a value is escaped, so what looks like a label is one.
    if had[0] + b'"' in line or had[1] + b'"' in line:
        return line
    return b"%b{%b,%b" % (line[:brace], mark, line[brace + 1 :])


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

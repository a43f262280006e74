"""
A configuration file, read: sections that are sound, or every fault at once.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from gateway.config.checks import check
from gateway.config.faults import ConfigErrors, Fault
from gateway.config.positions import scan
from gateway.config.sections import Config
from gateway.config.shape import section
from gateway.config.walk import Walk

__all__ = ["Config", "ConfigErrors", "Fault", "load", "parse", "read", "syntax_fault"]

_where = re.compile(r"(.*) \(at (?:line ([0-9]+), column ([0-9]+)|end of document)\)", re.DOTALL).fullmatch


def load(path: Path, environ: Mapping[str, str]) -> Config:
    """
    Read the file at *path*; what it leaves open is taken from *environ* and from defaults.

    Files that it names are looked at, not read. Nothing else is touched.

    Raises:
        ConfigErrors: with every fault; also when the file cannot be read.
    """
    return parse(read(path), str(path), environ)


def read(path: Path) -> str:
    """
    Return the text of the file at *path*.

    Raises:
        ConfigErrors: it cannot be read, or is not UTF-8.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigErrors(str(path), [Fault(1, 1, "", f"the file cannot be read: {reason}")]) from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = len(raw[raw.rfind(b"\n", 0, error.start) + 1 : error.start].decode(errors="replace")) + 1
        fault = Fault(line, column, "", f"TOML is UTF-8, and the byte 0x{raw[error.start]:02X} here is not")
        raise ConfigErrors(str(path), [fault]) from error


def parse(text: str, source: str, environ: Mapping[str, str]) -> Config:
    """
    Read *text* as the configuration that stands in *source*.

    Args:
        source: The file's name, for messages; relative paths in *text* start from its folder.

    Raises:
        ConfigErrors: with every fault.
    """
    try:
        raw = tomllib.loads(text)
        positions = scan(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigErrors(source, [syntax_fault(error, text)]) from error
    except RecursionError as error:
        raise ConfigErrors(source, [Fault(1, 1, "", "arrays or tables are nested too deeply")]) from error
    walk = Walk(positions, environ, Path(source).absolute().parent)
    config: Config = walk.section(section(Config), raw, ())
    check(config, walk)
    if walk.faults:
        raise ConfigErrors(source, walk.faults)
    return replace(config, source=source, digest=sha256(text.encode()).hexdigest()[:12])


def syntax_fault(error: tomllib.TOMLDecodeError, text: str) -> Fault:
    """
    Place what ``tomllib`` found; before Python 3.14 the position stands in its message alone.
    """
    found = _where(str(error))
    what, line, column = found.groups() if found else (str(error), "1", "1")
    if line is None:
        lines = text.split("\n")
        return Fault(
            len(lines), len(lines[-1]) + 1, "", f"not TOML: {what[0].lower()}{what[1:]} at the end of the file"
        )
    return Fault(int(line), int(column), "", f"not TOML: {what[0].lower()}{what[1:]}")

"""
One TOML value to one value of ours, or what was expected instead.

Each converter takes the shape, the value after expansion, whether that came from the environment
(then a number may be written as a string), and the folder that relative paths start from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any, Final

from gateway.config.sections import Secret
from gateway.config.shape import Scalar
from gateway.config.units import Rate, format_duration, format_size, parse_duration, parse_rate, parse_size

__all__ = ["Wrong", "convert", "expected", "stand_in"]


class Wrong(Exception):
    """
    A value is not what it should be; the text says what was expected.

    Attributes:
        quotes: The text quotes the value, so it must not be shown if that came from the environment.
    """

    def __init__(self, text: str, *, quotes: bool = False) -> None:
        super().__init__(text)
        self.quotes = quotes


_NAMES: Final = {
    "text": "a string",
    "secret": "a string",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "duration": 'a duration such as "2s"',
    "size": 'a size such as "64KiB"',
    "rate": 'a rate such as "30/s"',
    "file": "the path of a file",
    "folder": "the path of a folder",
    "network": "a network such as 10.0.0.0/8",
}


_STAND_INS: Final = {
    "text": "",
    "secret": Secret(""),
    "boolean": False,
    "file": Path("/"),
    "folder": Path("/"),
    "network": ip_network("127.0.0.1"),
    "rate": Rate(1, 1.0),
    "duration": 1.0,
    "number": 1.0,
}


def convert(shape: Scalar, value: Any, from_environment: bool, folder: Path) -> Any:
    """
    Turn *value* into what *shape* says.

    Raises:
        Wrong: with what was expected.
    """
    return _CONVERT[shape.kind](shape, value, from_environment, folder)


def expected(shape: Scalar) -> str:
    """
    Name what *shape* takes.
    """
    return f"one of {', '.join(shape.choices)}" if shape.choices else _NAMES[shape.kind]


def stand_in(shape: Scalar) -> Any:
    """
    Make a value of the right type that means nothing.
    """
    return _STAND_INS.get(shape.kind, 0)


def _string(shape: Scalar, value: Any) -> str:
    if not isinstance(value, str):
        raise Wrong(f"expected {expected(shape)}")
    return value


def _text(shape: Scalar, value: Any, _: bool, __: Path) -> str:
    text = _string(shape, value)
    if shape.choices and text not in shape.choices:
        raise Wrong(f"expected {expected(shape)}")
    if not text.strip():
        raise Wrong("must not be empty")
    allowed = "\t\n" if shape.lines else ""
    if any((character < " " or character == "\x7f") and character not in allowed for character in text):
        raise Wrong("must not hold line ends or other control characters")
    return text


def _secret(shape: Scalar, value: Any, _: bool, __: Path) -> Secret:
    text = _string(shape, value)
    if not text:
        raise Wrong("must not be empty")
    if text != text.strip() or any(character < " " or character == "\x7f" for character in text):
        # The scar: a secret read from a file with the line end that an editor put there.
        raise Wrong("begins or ends with white space, or holds a line end or another control character")
    return Secret(text)


def _file(shape: Scalar, value: Any, environment: bool, folder: Path) -> Path:
    return folder / _text(shape, value, environment, folder)


def _boolean(_: Scalar, value: Any, environment: bool, __: Path) -> bool:
    if environment and value in ("true", "false"):
        return bool(value == "true")
    if not isinstance(value, bool):
        raise Wrong("expected true or false")
    return value


def _integer(shape: Scalar, value: Any, environment: bool, _: Path) -> int:
    if environment and isinstance(value, str) and value.isdecimal() and value.isascii():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Wrong(f"expected a whole number{_range(shape, str)}")
    return int(_within(shape, value, str))


def _number(shape: Scalar, value: Any, environment: bool, _: Path) -> float:
    if environment and isinstance(value, str):
        value = float(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise Wrong(f"expected a number{_range(shape, str)}")
    return _within(shape, value, str)


def _duration(shape: Scalar, value: Any, _: bool, __: Path) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise Wrong(f'expected a duration with a unit ("{value}s" or "{value}ms"?)')
    return _within(shape, _read(parse_duration, shape, value), format_duration)


def _size(shape: Scalar, value: Any, _: bool, __: Path) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        value = _read(parse_size, shape, value)
    return int(_within(shape, value, lambda size: format_size(int(size))))


def _rate(shape: Scalar, value: Any, _: bool, __: Path) -> Rate:
    rate: Rate = _read(parse_rate, shape, value)
    return rate


def _network(shape: Scalar, value: Any, _: bool, __: Path) -> Any:
    text = _string(shape, value)
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        meant = ip_interface(text).network
    except ValueError:
        raise Wrong("expected a network such as 10.0.0.0/8 or an address") from None
    raise Wrong(f"the address has bits beyond its prefix; did you mean {meant}?", quotes=True)


def _read(parse: Callable[[str], Any], shape: Scalar, value: Any) -> Any:
    """Have a unit's parser read *value*, whose words it may quote when they stand in the file."""
    try:
        return parse(_string(shape, value))
    except ValueError as wrong:
        raise Wrong(str(wrong), quotes=True) from wrong


def _range(shape: Scalar, write: Callable[[float], str]) -> str:
    if shape.most is not None:
        return f" from {write(shape.least or 0)} to {write(shape.most)}"
    return f" of at least {write(shape.least)}" if shape.least is not None else " above 0"


def _within(shape: Scalar, value: float, write: Callable[[float], str]) -> float:
    small = value <= 0 if shape.least is None else value < shape.least
    if small or (shape.most is not None and value > shape.most) or value != value:  # noqa: PLR0124  # NaN
        kind = {"duration": "a duration", "size": "a size", "integer": "a whole number"}.get(shape.kind, "a number")
        raise Wrong(f"expected {kind}{_range(shape, write)}")
    return value


_CONVERT: Final[Mapping[str, Callable[[Scalar, Any, bool, Path], Any]]] = {
    "text": _text,
    "secret": _secret,
    "file": _file,
    "folder": _file,
    "boolean": _boolean,
    "integer": _integer,
    "number": _number,
    "duration": _duration,
    "size": _size,
    "rate": _rate,
    "network": _network,
}

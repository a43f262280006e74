"""
The expressions of the configuration (``when``, ``set``, channel rules): CEL, and how far it is trusted.

CEL is the language of Envoy's and Kubernetes' policies (https://cel.dev). A library with a compiled
core evaluates it; only this module knows which. At load an expression is checked as far as it can
be without a request. At run time whatever is not plainly allowed is denied: a claim that is
missing, a type that does not fit, a result that is not a boolean. Nothing here becomes a 500, and
nothing passes by accident.

The library converts what it is handed at each evaluation, at about 1 microsecond a value. So it gets
only the fields that the expression names, within the bounds below; a bare field path
(``claims.sub``) and rules of the common shapes (``path.player_id == claims.sub``,
``'admin' in claims.roles``, joined by ``&&``) do not need it at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import cel

from gateway.config.expression_shortcuts import shortcuts
from gateway.config.expression_source import Analysis, Path, analyse

__all__ = ["Denied", "Expression", "ExpressionError", "check", "compile_expression"]

LONGEST_SOURCE: Final = 2000  # Signs. The library recurses on what it parsed: 20,000 "+" crash it.
LONGEST_TEXT: Final = 8192  # Signs of one string handed in: a whole token fits.
MOST_ITEMS: Final = 256  # Of one list or map.
MOST_ITEMS_COLLECTED: Final = 64  # The same where map or filter is used: 256 take 7 ms, 64 take 0.5 ms.
MOST_VALUES: Final = 2048  # In all.
DEEPEST: Final = 16  # Lists and maps within each other: the library recurses on them, too.

Reason = Literal["missing", "type", "too_large", "error", "not_boolean", "false"]
"""Why not: the closed list for counters."""

_NOTHING: Final[Mapping[str, Any]] = {}
_place = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")


class ExpressionError(ValueError):
    """
    An expression cannot be taken.

    Attributes:
        message: The first fault, and what was meant.
        column: Where, counted from 1; None if it is not known.
        faults: All of them, each with its column.
    """

    def __init__(self, faults: list[tuple[str, int | None]]) -> None:
        self.message, self.column = faults[0]
        self.faults = tuple(faults)
        super().__init__(self.message if self.column is None else f"column {self.column}: {self.message}")


class Denied(Exception):
    """
    An expression did not say yes.

    Attributes:
        reason: One of ``Reason``, for a counter.
        detail: For the log: names, never values.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail


class Expression:
    """
    A checked expression. A context maps each root to its fields; what is absent is missing, not an error.

    Attributes:
        source: As written.
        roots: The roots it uses: the rest of the context need not be made.
        path: Its path when it is a bare field path, else None.
    """

    __slots__ = ("_most_items", "_program", "_quick", "_wanted", "path", "roots", "source")

    def __init__(self, source: str, program: Any, analysis: Analysis) -> None:
        self.source = source
        self._program = program
        self._most_items = MOST_ITEMS_COLLECTED if analysis.collects else MOST_ITEMS
        paths = [path for path, _, _ in analysis.paths]
        self.roots = frozenset(path[0] for path in paths)
        self._wanted = _wanted(paths)
        bare = len(analysis.paths) == 1 and analysis.paths[0][1:] == (0, len(analysis.tokens) - 1)
        self.path: Path | None = paths[0] if bare else None
        self._quick = None if bare else shortcuts(analysis)

    def __repr__(self) -> str:
        return f"Expression({self.source!r})"

    def value(self, context: Mapping[str, Any]) -> Any:
        """
        Evaluate.

        Raises:
            Denied: ``missing``, ``type``, ``too_large`` or ``error``.
        """
        if self.path is not None:
            return _look_up(self.path, context)
        bounds = _Bounds(self._most_items)
        handed = {root: bounds.pick(context.get(root, _NOTHING), below) for root, below in self._wanted.items()}
        return _evaluated(self._program, handed)

    def allows(self, context: Mapping[str, Any]) -> Literal[True]:
        """
        Return True if the result is exactly true; there is no other answer.

        Raises:
            Denied: for everything else: beside ``value``'s reasons ``false`` and ``not_boolean``.
        """
        if self._quick is not None and all(test(context) for test in self._quick):
            return True
        result = self.value(context)
        if result is True:
            return True
        if result is False:
            raise Denied("false", self.source)
        raise Denied("not_boolean", f"{self.source} is a {type(result).__name__}")


def compile_expression(source: str, roots: frozenset[str], *, rule: bool = False) -> Expression:
    """
    Check *source* as far as possible without a request.

    Parsed; names against *roots*; functions against the standard set; macros not nested; one trial
    with empty roots, in which all but missing fields and values out of range counts.

    Args:
        roots: Names with which its paths may begin.
        rule: Its result decides: a result that the trial already shows to be no boolean is refused.

    Raises:
        ExpressionError: with every fault found.
    """
    if len(source) > LONGEST_SOURCE:
        raise ExpressionError([(f"an expression has at most {LONGEST_SOURCE} signs", LONGEST_SOURCE + 1)])
    if not source.strip():
        raise ExpressionError([("the expression is empty", 1)])
    analysis = analyse(source, roots)
    if analysis.faults:
        raise ExpressionError([*analysis.faults])
    try:
        program = cel.compile(source)
    except ValueError as error:
        raise ExpressionError([_syntax(str(error))]) from None
    expression = Expression(source, program, analysis)
    seen = analysis.bound | analysis.types | expression.roots
    called = {name for name in program.functions() if name[0].isalpha()}
    if seen != set(program.variables()) or not called <= analysis.called:
        raise ExpressionError([("its names cannot be told with certainty; write it more plainly", None)])
    _try(expression, rule=rule)
    return expression


def check(source: str, roots: frozenset[str], *, rule: bool = False) -> list[str]:
    """
    List the faults of *source*, each with its column where that is known; empty if it can be taken.
    """
    try:
        compile_expression(source, roots, rule=rule)
    except ExpressionError as error:
        return [what if column is None else f"column {column}: {what}" for what, column in error.faults]
    return []


def _try(expression: Expression, *, rule: bool) -> None:
    try:
        result = expression.value({})
    except Denied as denied:
        if denied.reason == "missing" or (expression.roots and denied.reason == "error"):
            return
        raise ExpressionError([(f"it fails whatever the request: {denied.detail}", None)]) from None
    if rule and result is not True and result is not False:
        raise ExpressionError([(f"a rule is true or false, and this is a {type(result).__name__}", None)])


def _evaluated(program: Any, handed: dict[str, Any]) -> Any:
    try:
        return program.execute(handed)
    except KeyError as error:
        raise Denied("missing", f"no {str(error)[:80]}") from None
    except IndexError:
        raise Denied("missing", "an index beyond the list") from None
    except (TypeError, RuntimeError) as error:  # RuntimeError: a function that does not take this type.
        raise Denied("type", _first_sentence(error)) from None
    except Exception as error:
        raise Denied("error", _first_sentence(error)) from None
    except BaseException as error:
        # A panic in the compiled core is no Exception; whatever else is not ours to take.
        if type(error).__name__ != "PanicException":
            raise
        raise Denied("error", "the evaluator failed") from None


def _first_sentence(error: Exception) -> str:
    """What the library says, without its advice and without values it may quote."""
    return f"{type(error).__name__}: {str(error).partition('.')[0].partition('error: ')[0][:120].strip()}"


def _syntax(text: str) -> tuple[str, int | None]:
    found = _place.search(text)
    if found is None:
        return text.partition("\n")[0], None
    what = found[3].partition(" expecting ")[0].removeprefix("Syntax error: ")
    return what, int(found[2]) if found[1] == "1" else None


def _look_up(path: Path, context: Mapping[str, Any]) -> Any:
    value: Any = context.get(path[0], _NOTHING)
    for name in path[1:]:
        if not isinstance(value, Mapping):
            raise Denied("type", f"{name} of {'.'.join(path)} stands in something that has no fields")
        try:
            value = value[name]
        except KeyError:
            raise Denied("missing", f"no {'.'.join(path)}") from None
    return value


def _wanted(paths: list[Path]) -> dict[str, Any]:
    """Join *paths* into a tree; a leaf is None, and what is below it is wanted with it."""
    tree: dict[str, Any] = {}
    for path in sorted(paths, key=len):
        below = tree
        for name in path[:-1]:
            step = below.setdefault(name, {})
            if step is None:
                break
            below = step
        else:
            below[path[-1]] = None
    return tree


class _Bounds:
    """Copies what is wanted of a context, and counts."""

    __slots__ = ("left", "most_items")

    def __init__(self, most_items: int) -> None:
        self.left = MOST_VALUES
        self.most_items = most_items

    def pick(self, value: Any, wanted: dict[str, Any] | None) -> Any:
        if wanted is None or not isinstance(value, Mapping):
            return value if type(value) is str and len(value) <= LONGEST_TEXT else self.whole(value, 0)
        return {name: self.pick(value[name], below) for name, below in wanted.items() if name in value}

    def whole(self, value: Any, depth: int) -> Any:
        self.left -= 1
        if self.left < 0 or depth > DEEPEST:
            raise Denied("too_large", "more values, or deeper ones, than an expression is handed")
        if isinstance(value, (str, bytes)):
            if len(value) > LONGEST_TEXT:
                raise Denied("too_large", f"a text of {len(value)} signs")
            return value
        if value is None or isinstance(value, (bool, float)):
            return value
        if isinstance(value, int):
            # The library would take a greater one for a float, and two of them for equal.
            if not -(2**63) <= value < 2**63:
                raise Denied("too_large", "a number beyond 64 bits")
            return value
        if not isinstance(value, (list, tuple, Mapping)):
            raise Denied("type", f"a {type(value).__name__} is nothing that expressions know")
        if len(value) > self.most_items:
            raise Denied("too_large", f"{len(value)} items")
        if isinstance(value, Mapping):
            return {key: self.whole(item, depth + 1) for key, item in value.items()}
        return [self.whole(item, depth + 1) for item in value]

"""
``${NAME}`` in a string, from the environment.

==================  =================================================================
``${NAME}``         the variable; a fault when it is not set
``${NAME:-text}``   the variable, or *text* when it is not set or empty
``${NAME:?text}``   the variable; a fault that says *text* when it is not set or empty
``$${``             the two characters ``${``
==================  =================================================================

Any other dollar sign is itself. What a variable holds is taken as it is: never expanded again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["Expansion", "expand"]

_reference = re.compile(r"\$\$\{|\$\{([^{}]*)(\}?)")
_inside = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:(:[-?])(.*))?", re.DOTALL).fullmatch


class Expansion(ValueError):
    """
    A string that cannot be expanded; its text says why.
    """


def expand(text: str, environ: Mapping[str, str]) -> tuple[str, bool]:
    """
    Replace what *text* takes from *environ*.

    Returns:
        The result, and whether anything came from the environment: then it must not be shown.

    Raises:
        Expansion: with every variable that is missing.
    """
    if "${" not in text:
        return text, False
    wrong: list[str] = []
    taken = False

    def replace(found: re.Match[str]) -> str:
        nonlocal taken
        if found[1] is None:
            return "${"
        taken = True
        inside = _inside(found[1]) if found[2] else None
        if inside is None:
            wrong.append(f"{found[0]} is not ${{NAME}}, ${{NAME:-default}} or ${{NAME:?message}}; $${{ is a plain ${{")
            return ""
        name, operator, rest = inside.groups()
        value = environ.get(name)
        if operator is None:
            if value is None:
                wrong.append(f"the environment variable {name} is not set")
            return value or ""
        if value:
            return value
        if operator == ":?":
            wrong.append(f"the environment variable {name} is not set: {rest}")
        return str(rest)

    result = _reference.sub(replace, text)
    if wrong:
        raise Expansion("; ".join(wrong))
    return result, taken

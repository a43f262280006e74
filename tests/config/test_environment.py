"""
``${NAME}`` in strings.
"""

import pytest

from gateway.config.environment import Expansion, expand

ENVIRON = {"NAME": "value", "EMPTY": "", "NESTED": "${NAME}"}


@pytest.mark.parametrize(
    ("text", "result", "taken"),
    [
        ("plain", "plain", False),
        ("${NAME}", "value", True),
        ("a${NAME}b${NAME}", "avaluebvalue", True),
        ("${EMPTY}", "", True),
        ("${EMPTY:-other}", "other", True),
        ("${MISSING:-other}", "other", True),
        ("${MISSING:-}", "", True),
        ("${MISSING:-http://x:1/?a=b}", "http://x:1/?a=b", True),
        ("${NAME:-other}", "value", True),
        ("${NAME:?why}", "value", True),
        ("${NESTED}", "${NAME}", True),
        ("$${NAME}", "${NAME}", False),
        ("matches('^a$')", "matches('^a$')", False),
        ("$NAME $ $$", "$NAME $ $$", False),
    ],
)
def test_expansion(text: str, result: str, taken: bool) -> None:
    """
    References are replaced once; every other dollar sign stands for itself.
    """
    assert expand(text, ENVIRON) == (result, taken)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("${MISSING}", "the environment variable MISSING is not set"),
        ("${MISSING}${ALSO}", "MISSING is not set; the environment variable ALSO is not set"),
        ("${MISSING:?make one first}", "MISSING is not set: make one first"),
        ("${EMPTY:?make one first}", "EMPTY is not set: make one first"),
        ("${}", "${} is not ${NAME}"),
        ("${1A}", "${1A} is not ${NAME}"),
        ("${NAME", "${NAME is not ${NAME}"),
        ("${NAME-x}", "${NAME-x} is not ${NAME}"),
    ],
)
def test_what_cannot_be_expanded(text: str, says: str) -> None:
    """
    Every variable that is missing is named, with the message that was given for it.
    """
    with pytest.raises(Expansion) as wrong:
        expand(text, ENVIRON)
    assert says in str(wrong.value)

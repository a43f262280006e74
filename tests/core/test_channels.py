"""
Channel names and patterns.
"""

import pytest

from gateway.core.channels import MAX_NAME, BadPattern, ChannelTable, valid_name


def table(*patterns: str) -> ChannelTable[str]:
    return ChannelTable([(pattern, pattern.upper()) for pattern in patterns])


@pytest.mark.parametrize(
    ("name", "pattern", "params"),
    [
        ("lobby", "lobby", {}),
        ("table:7", "table:{table_id}", {"table_id": "7"}),
        ("table:vip", "table:vip", {}),
        ("table:vip7", "table:vip{n}", {"n": "7"}),
        ("chat:7:de", "chat:{table_id}:{lang}", {"table_id": "7", "lang": "de"}),
        ("log:a:b:c", "log:{rest*}", {"rest": "a:b:c"}),
        ("log:a", "log:{one}", {"one": "a"}),
    ],
)
def test_names_have_the_most_specific_pattern(name: str, pattern: str, params: dict[str, str]) -> None:
    """
    A literal character beats a variable, and a variable beats the rest.
    """
    channels = table(
        "log:{rest*}",
        "log:{one}",
        "table:{table_id}",
        "table:vip{n}",
        "chat:{table_id}:{lang}",
        "table:vip",
        "lobby",
    )
    found = channels.match(name)
    assert found is not None
    assert (found.pattern, dict(found.params), found.rule) == (pattern, params, pattern.upper())


@pytest.mark.parametrize(
    "name",
    ["", "nowhere", "table:", "table:a:b", "table:7\n", "table: 7", "täble:7", "Table:7", "table:7\x00", "x" * 256],
)
def test_other_names_are_nobodys(name: str) -> None:
    """
    A name that no pattern has, or that is no name, has no rule.
    """
    assert table("lobby", "table:{table_id}").match(name) is None


@pytest.mark.parametrize(
    "patterns",
    [
        ("",),
        ("a{",),
        ("a}",),
        ("{A}",),
        ("{a}{b}",),
        ("{a}:{a}",),
        ("{a*}:b",),
        ("a b",),
        ("lobby", "lobby"),
        ("table:{a}", "table:{b}"),
        ("x" * (MAX_NAME + 1),),
    ],
)
def test_bad_patterns_are_refused(patterns: tuple[str, ...]) -> None:
    """
    A pattern that cannot be read or that repeats another is an error at load.
    """
    with pytest.raises(BadPattern):
        table(*patterns)


def test_personal_channels_cross_no_users() -> None:
    """
    However a name is spelled, its variable is the text between the literals, whole.
    """
    channels = table("user:{user_id}")
    found = channels.match("user:42,43")
    assert found is not None
    assert found.params == {"user_id": "42,43"}
    assert channels.match("user:42:43") is None
    assert not valid_name("user:42 ")

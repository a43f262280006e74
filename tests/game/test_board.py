"""
Connect Four, as its rules have it.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.game.rules import COLUMNS, ROWS, Board, Illegal


def played(*columns: int) -> Board:
    board = Board()
    for column in columns:
        board.drop(column)
    return board


@pytest.mark.parametrize(
    ("columns", "winner"),
    [
        ((0, 1, 0, 1, 0, 1, 0), "R"),
        ((0, 0, 1, 1, 2, 2, 3), "R"),
        ((6, 0, 1, 1, 2, 2, 3, 2, 3, 3, 5, 3), "Y"),
        ((3, 2, 2, 1, 1, 0, 1, 0, 0, 6, 0), "R"),
    ],
)
def test_four_in_a_line_win(columns: tuple[int, ...], winner: str) -> None:
    """
    Four in a column, a row or a diagonal win, and the game is over.
    """
    board = played(*columns)
    assert board.winner == winner
    with pytest.raises(Illegal):
        board.drop(4)


@given(st.lists(st.integers(-1, COLUMNS), max_size=60))
def test_any_play_keeps_the_board_whole(columns: list[int]) -> None:
    """
    Whatever is tried, discs alternate, columns hold six, and nothing follows a win.
    """
    board = Board()
    for column in columns:
        before = (list(board.columns), board.winner)
        try:
            board.drop(column)
        except Illegal:
            assert (board.columns, board.winner) == before
    assert all(len(column) <= ROWS for column in board.columns)
    text = "".join(board.rows())
    assert 0 <= text.count("R") - text.count("Y") <= 1
    assert len(board.moves) == ROWS * COLUMNS - text.count(".")

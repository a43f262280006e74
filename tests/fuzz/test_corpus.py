"""
The kept corpus, and what chance makes of it: a little of it each time, hours of it by ``make fuzz``.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
SLOW_S = 2.0
"""An input that takes this long hangs; a hundredth of it is usual."""


def kept(name: str) -> list[bytes]:
    """The inputs that are kept for a target."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


@pytest.mark.parametrize("name", TARGETS)
def test_kept_inputs(name: str) -> None:
    """
    What was ever found, and one of each kind, does no harm.
    """
    inputs = kept(name)
    assert len(inputs) >= 3
    for data in inputs:
        began = time.process_time()
        TARGETS[name](data)
        assert time.process_time() - began < SLOW_S


@given(name=st.sampled_from(sorted(TARGETS)), data=st.data())
@settings(max_examples=600, deadline=None)
def test_changed_inputs(name: str, data: st.DataObject) -> None:
    """
    What is cut, doubled, spliced and altered of it does none either.
    """
    seeds = kept(name)
    made = data.draw(st.sampled_from(seeds))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(made)))
        until = data.draw(st.integers(at, min(len(made), at + 16)))
        other = data.draw(st.sampled_from(seeds))
        piece = data.draw(st.binary(max_size=4) | st.just(made[at:until] * 2) | st.just(other[:64]))
        made = made[:at] + piece + made[until:]
    TARGETS[name](made)


def test_every_target_has_a_corpus() -> None:
    """
    Folders and targets are the same.
    """
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)

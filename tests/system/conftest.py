"""
What system tests share.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.backend import Backend, recording
from tests.system.installation import Installation, install

INSTALL_S = 420
"""Whichever test comes first waits for the installation."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test of this folder the time that an installation may take."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(INSTALL_S))


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The wheel, installed in an empty environment away from the checkout; all workers share it."""
    base = tmp_path_factory.getbasetemp()
    return install(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)


@pytest.fixture
def twistd(installed: Installation) -> str:
    """The installed ``twistd``."""
    return installed.program("twistd")


@pytest.fixture
def gateway(installed: Installation) -> str:
    """The installed ``gateway``."""
    return installed.program("gateway")


@pytest.fixture
def backend() -> Iterator[Backend]:
    """A backend that writes down what reaches it."""
    with recording() as made:
        yield made

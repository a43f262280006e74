"""
The test protos, compiled once.
"""

from __future__ import annotations

import pytest
from tests.core.transcoding import support

from gateway.upstream.descriptors import Schema


@pytest.fixture(scope="session")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    """All protos under ``tests/protos/transcoding``."""
    return support.schema(tmp_path_factory.mktemp("protos"))

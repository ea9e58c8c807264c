"""Fixtures of deployments: processes of Flower that end with the test."""

from __future__ import annotations

import pytest
from loopback import Federation


@pytest.fixture
def federation(tmp_path):
    found = Federation(tmp_path)
    yield found
    found.stop()

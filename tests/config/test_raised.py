"""Owner of a file: an error line names places in a user's code only."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import fedlt
import strategies
from fedlt.config.raised import CORE, is_outside

HOME = Path(fedlt.__file__).parent


@pytest.mark.parametrize(
    ("file", "is_users", "is_checked"),
    [
        ("/home/me/mine.py", True, True),
        (HOME / "cli/templates/new_strategy.py", True, True),  # what `fedlt new` begins with
        (strategies.__file__, False, True),
        (HOME / "client.py", False, False),
        (json.__file__, False, False),
        (np.__file__, False, False),
        ("<string>", False, False),
    ],
)
def test_a_users_code_is_neither_fedlts_nor_installed(file, is_users, is_checked):
    """The conformance kit names places in strategies/ and clients/, too."""
    assert is_outside(str(file)) == is_users
    assert is_outside(str(file), [CORE]) == is_checked

"""``python -m fedlt``: the command line."""

from __future__ import annotations

from fedlt.cli import main

raise SystemExit(main())

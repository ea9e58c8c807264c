"""``python -m fedlt``: the command line."""

from __future__ import annotations

from fedlt.cli import main

__all__: list[str] = []

raise SystemExit(main())

"""A test session: two processes where whole folders are tested, and temporary folders in memory.

Tests of one group run in one process: Ray's, those of tests/faults (signals, memory, killed
processes), each setting (``changes``) with its reference run, the commands of the pages in two
halves, and each other file by itself.
What a command line says about processes (``-n``, ``-p no:xdist``) or about ``--basetemp`` holds.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")
ROOM = 4 * 2**30  # bytes that must be free there; a session takes under 1 GiB, Ray some more
PREFIX = "fedlt-tests-"
BASE = pytest.StashKey[Path]()
PROCESSES = 2


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Choose the processes and the temporary folder."""
    option = config.option
    if hasattr(config, "workerinput") or option.collectonly:
        return
    if option.basetemp is None and has_room(MEMORY):
        config.stash[BASE] = MEMORY / f"{PREFIX}{os.getpid()}"
        option.basetemp = str(config.stash[BASE])
    if config.pluginmanager.hasplugin("xdist") and not option.usepdb:
        if option.numprocesses is None and all(Path(given).is_dir() for given in config.args):
            option.numprocesses = min(PROCESSES, os.cpu_count() or 1)
        if option.numprocesses and option.dist == "no":
            option.dist, option.loadscopereorder = "loadgroup", False


def has_room(folder: Path) -> bool:
    """Say whether ``folder`` can be used, after what ended sessions have left there is removed."""
    for left in folder.glob(f"{PREFIX}*"):
        if not Path("/proc", left.name.removeprefix(PREFIX)).exists():
            shutil.rmtree(left, ignore_errors=True)
    return os.access(folder, os.W_OK) and shutil.disk_usage(folder).free >= ROOM


def pytest_unconfigure(config: pytest.Config) -> None:
    """Give the memory back."""
    if BASE in config.stash:
        shutil.rmtree(config.stash[BASE], ignore_errors=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Name each test's group in a session of several processes; the longest group begins."""
    if not hasattr(config, "workerinput"):
        return
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group_of(item)))
    items.sort(key=lambda item: group_of(item) != "ray")


def group_of(item: pytest.Item) -> str:
    """Return the name of a test's group."""
    if item.get_closest_marker("ray") or item.path.parent.name == "faults":
        return "ray"
    case = getattr(item, "callspec", None)
    if "block" in getattr(case, "params", ()):  # commands of the pages: long enough for two
        return f"{item.path.stem}-{zlib.crc32(case.id.encode()) % PROCESSES}"
    if case is None or "changes" not in case.params:
        return item.path.stem
    text = json.dumps(case.params["changes"], sort_keys=True, default=str)
    return f"{zlib.crc32(text.encode()):08x}"

"""A claim on a run directory that need not exist: one process on a machine prepares a run.

The claim is a name that the kernel keeps as long as its process lives, so nothing is written and
nothing can be left behind. The lock on the directory itself, in fedlt/runs/directory.py, holds
across machines.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedlt.errors import FedltError


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Claim a run directory for this process, also before the directory exists; Linux only.

    Raises:
        FedltError: If another process prepares or continues a run there.
    """
    if sys.platform != "linux":
        yield
        return
    place = os.fsencode(os.path.realpath(path))
    name = f"\0fedlt-run-{os.getuid()}-{hashlib.sha256(place).hexdigest()[:40]}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as claim:
        try:
            claim.bind(name)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise FedltError(f"{path} is in use: another process runs it") from None
        yield

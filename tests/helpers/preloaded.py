"""Commands of fedlt from a process that has imported it once, and forks for each of them.

``python preloaded.py serve SOCKET`` waits for commands until its standard input ends;
``python -I -S preloaded.py run SOCKET ARGUMENTS`` is then what ``python -m fedlt ARGUMENTS`` is,
with the caller's folder, environment, output and exit code, but without seconds of imports.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def preloaded(folder: Path, root: Path) -> Iterator[Path]:
    """Start the process, and yield an executable that stands for ``python -m fedlt``.

    Args:
        folder: Where the executable and the socket are put.
        root: The repository, from which fedlt is imported.
    """
    import shlex
    import subprocess

    place, script = folder / "socket", folder / "fedlt"
    words = [sys.executable, "-I", "-S", __file__, "run", str(place)]
    script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    script.chmod(0o755)
    pipe = subprocess.PIPE
    command = [sys.executable, __file__, "serve", str(place)]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield script
        server.communicate()


def _serve(place: str) -> None:
    import fedlt.cli
    import fedlt.comparing.schedule
    import fedlt.simulate  # noqa: F401

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        listener.listen()
        print("ready", flush=True)  # noqa: T201
        children = set[int]()
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            with connection:
                child = os.fork()
                if child == 0:
                    _answer(connection)
            children = {c for c in {*children, child} if os.waitpid(c, os.WNOHANG) == (0, 0)}


def _answer(connection: socket.socket) -> None:
    """Carry out a command in this process, which ends with it."""
    import atexit
    import multiprocessing.process

    import fedlt
    from fedlt.cli import main

    code = 1
    try:
        _, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
        with connection.makefile("rb") as asked:
            cwd, environment, arguments = json.load(asked)
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(environment)
        multiprocessing.process.ORIGINAL_DIR = cwd  # where processes that are spawned begin
        sys.argv = [str(Path(fedlt.__file__).with_name("__main__.py")), *arguments]
        sys.path[0] = cwd
        code = main()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        connection.sendall(bytes([code]))
        os._exit(code)


def _run(place: str, arguments: list[str]) -> int:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(place)
        socket.send_fds(connection, [b"."], [0, 1, 2])
        connection.sendall(json.dumps([os.getcwd(), dict(os.environ), arguments]).encode())
        connection.shutdown(socket.SHUT_WR)
        return (connection.recv(1) or b"\1")[0]


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve(sys.argv[2])
    else:
        sys.exit(_run(sys.argv[2], sys.argv[3:]))

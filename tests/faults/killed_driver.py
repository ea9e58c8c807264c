"""Kill runs and let them go on, each in a process forked from this one, which has imported all.

    python killed_driver.py CONFIG moments SEED KILLS    SIGKILL at random moments
    python killed_driver.py CONFIG steps SEED KILLS      SIGKILL at random steps of what is written
    python killed_driver.py CONFIG steps all             and at every step of it

Prints, as JSON, what every run has left behind: all of them must be the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from fedlt.checkpoints import load_checkpoint
from fedlt.config import Config
from fedlt.engines import serial  # noqa: F401 (imported before the fork)
from fedlt.runs import RunDirectory
from fedlt.simulate import run

STEPS = ("fsync", "replace", "rename", "mkdir", "rmdir", "unlink", "truncate")


def left(config: Config) -> str:
    """Return a digest of a finished run: tensors, rounds, and result, timings aside."""
    directory = RunDirectory.of(config)
    checkpoint = load_checkpoint(directory.checkpoints)
    digest = hashlib.sha256()
    for group, tensors in checkpoint.tensors.items():
        for name, tensor in tensors.items():
            digest.update(f"{group}/{name}/{tensor.dtype}".encode() + tensor.numpy().tobytes())
    rows = [{**row, "seconds": 0} for row in directory.rounds()]
    result = {
        k: v for k, v in directory.result().items() if k not in ("seconds", "peak_memory", "name")
    }
    for name in ("final", "last_k", "selected", "best_on_test"):
        if isinstance(result.get(name), dict):
            result[name] = {**result[name], "seconds": 0}
    digest.update(json.dumps([rows, result], sort_keys=True).encode())
    litter = [str(path) for path in directory.path.parent.rglob(".*")]
    return f"{len(rows)} rounds {litter} {digest.hexdigest()}"


def fork(work: Callable[[], Any]) -> int:
    """Do work in a process of its own."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def wait(child: int) -> int:
    """Return how a process ended."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def go_on(config: Config) -> None:
    """Start a run, or go on with it."""
    run(config, resume=True)


def finish(config: Config) -> str:
    """Let a run end in peace."""
    assert wait(fork(lambda: go_on(config))) == 0
    return left(config)


def killed_at_moments(config: Config, seconds: float, moments: random.Random, kills: int) -> int:
    """Kill a run several times; return how often it was alive."""
    alive = 0
    for _ in range(kills):
        child = fork(lambda: go_on(config))
        time.sleep(moments.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        if wait(child) == 0:
            break  # it was done before
        alive += 1
    return alive


def count_steps(config: Config, at: int | None = None, *, torn: bool = False) -> int:
    """Run and count the steps of what is written; die before the ``at``-th.

    Args:
        config: The run.
        at: Where to die.
        torn: Cut the last bytes off a file that is being synced.
    """
    done = 0

    def counted(step: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            nonlocal done
            done += 1
            if done == at:
                if torn and step.__name__ == "fsync":
                    with suppress(OSError):  # a folder has no bytes
                        size = os.fstat(arguments[0]).st_size
                        os.ftruncate(arguments[0], max(0, size - 7))
                os.kill(os.getpid(), signal.SIGKILL)
            return step(*arguments, **more)

        return call

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))
    go_on(config)
    return done


def steps_of(config: Config) -> int:
    """Return the number of steps of a whole run."""
    read, write = os.pipe()
    child = fork(lambda: os.write(write, str(count_steps(config)).encode()))
    assert wait(child) == 0
    return int(os.read(read, 20))


def main() -> None:
    """See the top."""
    config = Config.model_validate(json.loads(sys.argv[1]))

    def named(name: str) -> Config:
        return config.model_copy(update={"name": name})

    start = time.monotonic()
    reference = finish(named("undisturbed"))
    seconds = time.monotonic() - start
    found: dict[str, str] = {}
    kills = 0
    if sys.argv[2] == "moments":
        moments, wanted = random.Random(int(sys.argv[3])), int(sys.argv[4])
        while kills < wanted:
            one = named(f"run-{len(found)}")
            kills += killed_at_moments(one, seconds, moments, min(5, wanted - kills))
            found[one.name] = finish(one)
    else:
        total = steps_of(named("counted"))
        steps = list(range(1, total + 1))
        if sys.argv[3] != "all":
            steps = sorted(random.Random(int(sys.argv[3])).sample(steps, int(sys.argv[4])))
        for step in steps:
            one = named(f"step-{step}")
            torn = step % 2 == 0
            ended = wait(fork(partial(count_steps, one, step, torn=torn)))
            kills += ended == -signal.SIGKILL
            found[one.name] = finish(one)
    other = {name: value for name, value in found.items() if value != reference}
    sys.stdout.write(json.dumps({"kills": kills, "runs": len(found), "other": other}) + "\n")


main()

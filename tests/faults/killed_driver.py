"""Kill runs and let them go on, each in a process forked from this one, which has imported all.

    python killed_driver.py CONFIG moments SEED KILLS    SIGKILL at random moments
    python killed_driver.py CONFIG steps SEED KILLS      SIGKILL at random steps of what is written
    python killed_driver.py CONFIG steps all             and at every step of it
    python killed_driver.py CONFIG interrupts SEED N     Ctrl-C, every second time in an evaluation

Prints, as JSON, what every run has left behind: all of them must be the same. After an interrupt
the last round that was trained must be on disk: ``lost`` lists where it is not.
"""

from __future__ import annotations

import atexit
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

from fedlt.config import Config
from fedlt.engines import serial  # noqa: F401 (imported before the fork)
from fedlt.federation.evaluator import Evaluator
from fedlt.federation.ledger import Ledger, RoundOutcome
from fedlt.runs.checkpoints import load_checkpoint
from fedlt.runs.directory import RunDirectory
from fedlt.simulate import run

PAUSE = 0.1  # seconds at both ends of an evaluation, for an interrupt to fall into it
SOONER = 0.8  # of the time in which moments are drawn, where a run was done before its moment
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
    """Do work in a process of its own; its exit code is 130 after Ctrl-C."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except KeyboardInterrupt:
            code = 130
        finally:
            atexit._run_exitfuncs()  # Ray's servers end with it
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


class Interrupts:
    """Ctrl-C at random moments of a run's sessions, and what was trained before each."""

    def __init__(self, moments: random.Random, seconds: float) -> None:
        self._moments, self._seconds = moments, seconds
        self.count = self.inside = 0
        self.lost: list[str] = []

    def happen(self, config: Config, times: int) -> None:
        """Interrupt a run several times, at most until it is done."""
        trained = 0
        for number in range(times):
            trained, code = self._session(config, trained, in_evaluation=number % 2 == 0)
            if code == 0:
                self._seconds *= SOONER
                return
            assert code == 130, code
            self.count += 1
            found = load_checkpoint(RunDirectory.of(config).checkpoints) if trained else None
            if found is not None and found.round != trained:
                self.lost.append(f"{config.name}: round {found.round} of {trained}")
            if trained and found is None:
                self.lost.append(f"{config.name}: all {trained}")

    def _session(self, config: Config, trained: int, *, in_evaluation: bool) -> tuple[int, int]:
        """Return the last round that was trained, and the exit code."""
        read, write = os.pipe()
        child = fork(lambda: _go_on_aloud(config, write))
        os.close(write)
        with os.fdopen(read) as heard:
            if in_evaluation:
                wanted = self._moments.randint(1, 2)
                for line in heard:
                    trained = max(trained, int(line.partition(" ")[2]))
                    wanted -= line.startswith("evaluates")
                    if wanted == 0:
                        break
                time.sleep(self._moments.uniform(0, 1.5 * PAUSE))
                self.inside += wanted == 0
            else:
                time.sleep(self._moments.uniform(0, self._seconds))
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGINT)
            for line in heard:
                trained = max(trained, int(line.partition(" ")[2]))
        return trained, wait(child)


def _go_on_aloud(config: Config, out: int) -> None:
    """Go on with a run, say what it does, and be slow in evaluations."""
    note, evaluate = Ledger.note, Evaluator.evaluate

    def told_note(self: Ledger, outcome: RoundOutcome) -> None:
        note(self, outcome)
        os.write(out, f"trained {outcome.state.round}\n".encode())

    def slow_evaluate(self: Evaluator, standing: Any, *more: Any, **named: Any) -> Any:
        os.write(out, f"evaluates {standing.round}\n".encode())
        time.sleep(PAUSE)
        done = evaluate(self, standing, *more, **named)
        time.sleep(PAUSE)
        return done

    Ledger.note, Evaluator.evaluate = told_note, slow_evaluate
    signal.signal(signal.SIGINT, signal.default_int_handler)
    go_on(config)


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
    interrupts = Interrupts(random.Random(sys.argv[3]), seconds)
    if sys.argv[2] == "moments":
        moments, wanted = random.Random(int(sys.argv[3])), int(sys.argv[4])
        while kills < wanted:
            one, goal = named(f"run-{len(found)}"), min(5, wanted - kills)
            alive = killed_at_moments(one, seconds, moments, goal)
            if alive < goal:  # it was done before: the first run was slower than the others are
                seconds *= SOONER
            kills += alive
            found[one.name] = finish(one)
    elif sys.argv[2] == "interrupts":
        while interrupts.count < int(sys.argv[4]):
            one = named(f"run-{len(found)}")
            interrupts.happen(one, min(5, int(sys.argv[4]) - interrupts.count))
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
    told = {"kills": kills, "runs": len(found), "other": other}
    if sys.argv[2] == "interrupts":
        told |= {"kills": interrupts.count, "inside": interrupts.inside, "lost": interrupts.lost}
    sys.stdout.write(json.dumps(told) + "\n")


main()

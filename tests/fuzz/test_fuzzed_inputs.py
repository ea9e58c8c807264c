"""Two thousand inputs: accepted, or refused in one line with code 2; no traceback, nothing written.

Every input goes through the command line of this process. A run that is accepted is rehearsed as
far as the place where it would write its folder, which is where the test stops it. Only read and
resolved, and not rehearsed, is what :func:`is_heavy` names: a backbone, a plugin or data whose
making alone costs seconds. Comparisons, sweeps and recipes stop where their runs would start,
``realign``, ``generate`` and ``check`` where they would train, ``report`` where it would draw.
"""

from __future__ import annotations

import random
import signal
from collections import Counter
from pathlib import Path

import pytest
import typer
from fuzzed import BASE, Input, inputs

import fedlt.cli
from clients import CLIENTS
from fedlt.cli import main
from fedlt.config import Config, load_config
from fedlt.config.yaml12 import dump
from fedlt.errors import FedltError, RunError
from strategies import STRATEGIES

NUMBER, SEED = 2000, 20
WRITERS = ("app", "rescore", "inspect", "new")  # they are asked to, and end in a moment
LIMIT = 10  # seconds that one input may take on a machine that does something else besides
METHODS = {"strategy": dict(STRATEGIES.items()), "client": dict(CLIENTS.items())}
FILES = {
    "ok.py": "from strategies.fedavg import FedAvg\nclass S(FedAvg): pass\n",
    "bad.py": "1 / 0",
    "exits.py": "import sys; sys.exit(3)",
}


class AcceptedError(RunError):
    """Stands for what an accepted input would do."""


class TooSlowError(BaseException):
    """An input was not answered in time."""


def is_heavy(config: Config) -> bool:
    """Say whether to make a model or data for ``config`` costs more than moments."""
    options = config.data.options.values()
    sizes = [value for value in options if isinstance(value, int | float)]
    return (
        config.model.name not in ("cnn", "mlp")
        or (config.model.width or 16) > 64
        or config.data.dataset not in ("synthetic", "digits")
        or any(size > 64 for size in sizes)
        or config.client.name in ("deit_lt", "discl")
        or config.partition.num_clients > 100
    )


def stop(*_, **__):
    raise AcceptedError("accepted")


def is_short(config: Config) -> bool:
    """Say whether a run of ``config`` ends in seconds."""
    numbers = [*config.strategy.options.values(), *config.client.options.values()]
    steps = [config.rounds, config.local.epochs, config.personal.refresh.epochs]
    return (
        not is_heavy(config)
        and max(steps) <= 3
        and len(config.seeds or [1]) <= 2
        and not config.trackers
        and all(not isinstance(one, int | float) or abs(one) <= 10 for one in numbers)
    )


@pytest.fixture
def stopped(monkeypatch, tmp_path):
    """Stop what is accepted at the place where it would begin; return the folder of work."""
    import fedlt.check
    import fedlt.generators.generator
    import fedlt.report.build
    from fedlt import simulate
    from fedlt.comparing import estimate, grid_runs, sweep
    from fedlt.engines import preparing
    from fedlt.engines.auto import Choice
    from fedlt.engines.serial import SerialEngine
    from fedlt.realigning import session

    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("FEDLT_DATA", str(tmp_path / "none"))
    monkeypatch.setenv("COLUMNS", "200")
    for name, text in FILES.items():
        Path(name).write_text(text)
    Path("a.yaml").write_text(dump(BASE))
    assert main(["run", "a.yaml", "output=done", "rounds=1"]) == 0
    real, engine_class = simulate.run, simulate.engine_class

    def run(config, **options):
        if is_heavy(config):
            stop()
        return real(config, **options)

    def unweighed(name, *_):
        return Choice(name, name, None, {})

    def serial(name):
        return SerialEngine if engine_class(name).__name__ != "SerialEngine" else engine_class(name)

    monkeypatch.setattr(simulate, "run", run)
    monkeypatch.setattr(simulate, "engine_class", serial)  # no Ray for an input
    monkeypatch.setattr(preparing, "weigh_engines", unweighed)  # it times real steps
    monkeypatch.setattr(estimate, "prepare_parties", stop)
    monkeypatch.setattr(simulate, "create_run", stop)
    monkeypatch.setattr(grid_runs, "run_planned", stop)
    monkeypatch.setattr(sweep, "run_planned", stop)
    monkeypatch.setattr(session, "realign", stop)
    monkeypatch.setattr(fedlt.generators.generator, "find_pool_maker", stop)
    monkeypatch.setattr(fedlt.check, "run_checks", stop)
    monkeypatch.setattr(fedlt.report.build, "all_pictures", stop)
    monkeypatch.setattr(fedlt.cli, "app", typer.main.get_command(fedlt.cli.app))
    return work


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    """Return every file and folder with its size and time."""
    found = {}
    for path in folder.rglob("*"):
        if "__pycache__" not in path.parts and path.name != "a.yaml":
            status = path.stat()
            found[str(path)] = (0, 0) if path.is_dir() else (status.st_size, status.st_mtime_ns)
    return found


def answer(given: Input, capsys) -> tuple[str, str]:
    """Return ``accepted``, ``refused`` or what is wrong with the answer; and the line."""

    def late(*_):
        raise TooSlowError

    Path("a.yaml").write_text(given.text, encoding="utf-8", errors="surrogatepass")
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        code = main(given.arguments)
    except (Exception, TooSlowError) as error:
        return f"traceback: {error!r}", ""
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    captured = capsys.readouterr()
    lines = [one for one in captured.err.splitlines() if not one.startswith("executes ")]
    last = lines[-1] if lines else ""
    if code == 0 or (code == 1 and last == "error: accepted"):
        return "accepted", last
    if code != 2:
        return f"code {code}", last
    if len(lines) != 1 or not last.startswith("error: ") or len(last) > 2100 or captured.out:
        is_help = given.arguments[0] not in fedlt.cli.app.commands or "Usage" in captured.err
        return ("refused" if is_help else f"{len(lines)} lines"), "\n".join(lines)[:2000]
    return "refused", last


@pytest.mark.parametrize("number", [NUMBER // 5, pytest.param(NUMBER, marks=pytest.mark.slow)])
def test_inputs_are_accepted_or_refused_in_one_line(stopped, capsys, number):
    capsys.readouterr()
    kinds, wrong = Counter(), []
    before = everything(stopped)
    for given in inputs(number, SEED, METHODS):
        found, line = answer(given, capsys)
        kinds[given.kind, found] += 1
        after = everything(stopped)
        if after != before and not (found == "accepted" and given.arguments[0] in WRITERS):
            found = f"writes {sorted(set(after) ^ set(before))}"
        before = after
        if found not in ("accepted", "refused"):
            wrong.append(f"{found}: {given}\n{line}\n")
    assert not wrong, f"{len(wrong)} of {number}:\n" + "\n".join(wrong[:20])
    for kind in ("schema", "methods", "text", "comparisons", "commands"):
        assert kinds[kind, "accepted"] >= 3 * number // NUMBER, kinds
        assert kinds[kind, "refused"] >= number // 40, kinds


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_accepted_runs_end(tmp_path, monkeypatch, capsys):
    """Fifty of those that are accepted, and are short by :func:`is_short`, run as they are."""
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).write_text(text)
    draw, wrong, ran = random.Random(SEED), [], 0
    for given in inputs(20 * NUMBER, SEED + 1, METHODS):
        if ran == 50:
            break
        if given.arguments[:2] != ("run", "a.yaml") or draw.random() < 0.5:
            continue
        Path("a.yaml").write_text(given.text, encoding="utf-8", errors="surrogatepass")
        try:
            config = load_config("a.yaml", given.arguments[2:])
        except FedltError:
            continue
        if not is_short(config):
            continue
        code = main([*given.arguments, "engine.name=serial", f"output=runs/{ran}"])
        line = capsys.readouterr().err
        if code == 2:  # refused by the rehearsal
            continue
        ran += 1
        if code != 0:
            wrong.append(f"code {code}: {given}\n{line}\n")
    assert ran == 50
    assert not wrong, f"{len(wrong)} of 50:\n" + "\n".join(wrong)

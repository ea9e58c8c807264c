"""The help shows every verb under its task, with an example, and cuts nothing off at 80 columns."""

from __future__ import annotations

import inspect
import shlex
from typing import get_type_hints

import pytest
import typer
from doc_blocks import BLOCKS, PAGES, prose_of

from fedlt.cli import app, main
from fedlt.cli.help import MODES, TASKS

VERBS = typer.main.get_command(app).commands
EXAMPLES = {verb: line for verbs in TASKS.values() for verb, line in verbs.items()}


@pytest.fixture(autouse=True)
def _narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def words(text: str) -> str:
    return " ".join(text.split())


def letters(text: str) -> str:
    """Lines may be broken at a hyphen, so white space does not count."""
    return "".join(text.split())


def shown(arguments: list[str], capsys) -> str:
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    return out


def test_the_help_has_every_verb_once_under_a_task(capsys):
    out = shown(["--help"], capsys)
    starts = [line.split()[0] for line in out.splitlines() if line[:2] == "  " and line[2:3] != " "]
    assert sorted(name for name in starts if name in VERBS) == sorted(VERBS)
    assert set(EXAMPLES) == set(VERBS)
    sections = [line[:-1] for line in out.splitlines() if line.endswith(":") and line[0] != " "]
    assert sections == ["Options", *TASKS]
    for verb, command in VERBS.items():
        first = inspect.getdoc(command.callback).split("\n\n")[0]
        assert letters(f"{verb} {first}").rstrip(".") in letters(out)


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_a_verb_s_help_is_whole_and_has_an_example(verb, capsys):
    out = letters(shown([verb, "--help"], capsys))
    callback = VERBS[verb].callback
    hints = get_type_hints(callback, include_extras=True)
    helps = [
        MODES.get(one.name) or hints[one.name].__metadata__[0].help for one in VERBS[verb].params
    ]
    assert len(helps) >= 1
    assert [one for one in [inspect.getdoc(callback), *helps] if letters(one) not in out] == []
    assert out.endswith(letters(f"Example: {EXAMPLES[verb]}"))


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_an_example_is_understood_and_stands_on_a_page_that_is_tested(verb):
    program, first, *arguments = shlex.split(EXAMPLES[verb])
    assert (program, first) == ("fedlt", verb)
    VERBS[verb].make_context(verb, arguments)  # raises for an unknown option or a wrong value
    lines = {words(x.partition(" # ")[0]) for b in BLOCKS for x in b.text.split("\n")}
    assert EXAMPLES[verb] in lines or any(f"`{EXAMPLES[verb]}`" in prose_of(p) for p in PAGES)

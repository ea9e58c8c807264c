"""Inputs for the command line, drawn from the schema, the table of methods and the commands.

An input is the text of ``a.yaml`` and the arguments of a command. Draws are seeded: the same
inputs every time.
"""

from __future__ import annotations

import dataclasses
import random
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

import click
import typer
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel

from fedlt.cli import app
from fedlt.config import Config
from fedlt.config.yaml12 import dump

BASE: dict[str, Any] = {
    "name": "a",
    "rounds": 2,
    "data": {
        "dataset": "synthetic",
        "options": {"num_classes": 4, "train_per_class": 12, "test_per_class": 4},
    },
    "partition": {"num_clients": 3},
    "model": {"width": 2},
    "engine": {"name": "serial"},
}
NUMBERS = (
    "-1", "0", "1", "2", "3", "7", "-0.0", "0.5", "1.5", "1e-3", "1e-300", "5e-324",
    "1e308", "-1e308", "1e400", ".nan", ".inf", "-.inf", "2147483648",
    "9223372036854775807", "9223372036854775808", "-9223372036854775809", "1" * 30,
    "9" * 5000, "0x1f", "0o17", "1000001",
)  # fmt: skip
WORDS = (
    "null", "true", "false", "", "' '", "~", "x", "auto", "all", "fedavg", "mdcs",
    "é", "'a b'", "a.py:B", "ok.py:S", "bad.py:S", "exits.py:S", ":a", "'a:'", "./:X",
    "..:X", "'os:'", "os:system", "os.path:join", "json:loads", "no.such:X", "ok.py",
    "/proc", "/dev/zero", "/dev/null", ".", "..", "a.yaml", "~/x",
    "~nobody_of_that_name/x", "x" * 300, "/".join(["x" * 200] * 30), "-", "--", "'#'",
    "'%s'", "'{}'", "'[bold]x'", "'\\\\'",
)  # fmt: skip
SHAPES = (
    "[]", "{}", "[1]", "[1, 1]", "[a, b]", "{a: 1}", "{name: x}", "[[1], {a: [2]}]",
    "{a: {b: {c: 1}}}", "{'': 1}", "{1: 2}", "{a: 1, a: 2}", "[1, 2", "{a: ", "'x", "*a",
    "&a [*a]", "!!bool foo", "!!int x", "!!python/object:os.system {}", "!foo x",
    "!!set {a: 1}", "!!binary '='", "<<: 1", "{<<: {a: 1}}", "[" * 60 + "]" * 60, "? ",
    "- a", "a: b: c", "|", "%TAG", "\t", "'\\0'", '"\\0"', '"\\ud800"', "2024-01-01",
    "1_000", "on", "0o8", "{options: {options: 1}}", "{name: 3}", "[null]",
)  # fmt: skip
MARKS = "{}[]:,-#&*!|>'\"%@`\t \n\0\x07é\ufeff?~=<.0"  # single letters of a slip


@dataclass(frozen=True)
class Input:
    """One call of the command line."""

    arguments: tuple[str, ...]
    text: str  # of a.yaml
    kind: str  # where it was drawn from

    def __str__(self) -> str:
        """Return it for a failure's message."""
        given = " ".join(word if len(word) < 200 else f"{word[:200]}..." for word in self.arguments)
        return f"[{self.kind}] {given}\n{self.text[:600]}"


def leaves(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every dotted key of the schema with its field."""
    for name, field in model.model_fields.items():
        yield prefix + name, field
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from leaves(section, f"{prefix}{name}.")


def words_of(annotation: Any, metadata: Any = ()) -> list[str]:
    """Return values at and beside the bounds of a type, and slips of its words."""
    found: list[str] = []
    for bound in metadata:
        limit = next(
            (getattr(bound, n) for n in ("ge", "gt", "le", "lt") if hasattr(bound, n)), None
        )
        if isinstance(bound, Ge | Gt | Le | Lt) and limit is not None:
            found += [str(limit), str(limit - 1), str(limit + 1), str(limit * 2), str(limit + 0.5)]
    if get_origin(annotation) is Literal:
        for word in get_args(annotation):
            found += [str(word), str(word)[:-1], str(word).upper()]
    elif get_origin(annotation) in (Union, types.UnionType, tuple, list) or hasattr(
        annotation, "__metadata__"
    ):
        more = getattr(annotation, "__metadata__", ())
        inner = [item for one in more for item in getattr(one, "metadata", ())]
        for part in get_args(annotation):
            found += words_of(part, inner)
    return found


def from_schema(draw: random.Random) -> Input:
    """Return a run with one or two keys of the schema set to right and wrong values."""
    keys = list(leaves())
    given = []
    for key, field in draw.sample(keys, draw.choice([1, 1, 1, 2])):
        own = words_of(field.annotation, field.metadata)
        pool = draw.choice([own or NUMBERS, own or NUMBERS, NUMBERS, WORDS, SHAPES])
        given.append(f"{key}={draw.choice(pool)}")
    return Input(("run", "a.yaml", *given), dump(BASE), "schema")


def from_methods(draw: random.Random, methods: dict[str, dict[str, type]]) -> Input:
    """Return a run of a method with a hyperparameter set to anything."""
    section = draw.choice(["strategy", "client"])
    name = draw.choice(sorted(methods[section]))
    options = {}
    fields = [field.name for field in dataclasses.fields(methods[section][name]) if field.init]
    for field in draw.sample(fields, min(len(fields), draw.choice([0, 1, 1, 2]))):
        options[field] = draw.choice(draw.choice([NUMBERS, NUMBERS, WORDS, SHAPES]))
    given = [f"{section}={name}", *(f"{section}.{key}={value}" for key, value in options.items())]
    if draw.random() < 0.3:
        other = "client" if section == "strategy" else "strategy"
        given.append(f"{other}={draw.choice(sorted(methods[other]))}")
    return Input(("run", "a.yaml", *given), dump(BASE), "methods")


def from_text(draw: random.Random) -> Input:
    """Return a run of a file with slips of the pen: letters lost, doubled, swapped, lines moved.

    One file in ten has none.
    """
    tree = {**BASE, "strategy": {"name": "fedprox", "mu": 0.1}, "local": {"lr": 0.1, "epochs": 1}}
    text = dump(tree)
    for _ in range(draw.choice([0, 1, 1, 1, 2, 2, 3, 3, 4, 4])):
        place = draw.randrange(len(text)) if text else 0
        lines = text.splitlines(keepends=True)
        text = draw.choice([
            text[:place] + text[place + 1 :],
            text[:place] + draw.choice(MARKS) + text[place:],
            text[:place],
            text[:place] + text[place : place + 20] + text[place:],
            "".join(draw.sample(lines, len(lines))),
            text.replace(draw.choice(["name", ": ", "\n", "synthetic", "2", "{"]),
                         draw.choice([*NUMBERS, *WORDS, *SHAPES]), 1),
        ])  # fmt: skip
    return Input(("run", "a.yaml"), text, "text")


def from_comparisons(draw: random.Random) -> Input:
    """Return a comparison, a sweep or a recipe with a wrong section."""
    verb = draw.choice(["compare", "sweep", "reproduce"])
    figure = {"row": "A", "metric": "generic/accuracy", "moment": "last_k", "unit": "percent",
              "tolerance": 1.0, "source": "table 1", "value": 50.0}  # fmt: skip
    sections: dict[str, Any] = {
        "compare": {"search": {"local.lr": [0.1]}, "rows": {"A": {}, "B": {"strategy": "fedprox"}}}
    }
    if verb == "reproduce":
        scale = {"purpose": "p", "limits": "l", "set": {"rounds": 1}, "rows": {"A": {}}}
        sections["reproduce"] = {"about": "x", "figures": [figure], "scales": {"cpu": scale}}
    tree = {**BASE, **sections}
    places: list[Any] = [tree]
    for part in places:
        places += [v for v in (part.values() if isinstance(part, dict) else part)
                   if isinstance(v, dict | list) and v]  # fmt: skip
    part = draw.choice(places[1:])
    key = draw.choice(list(part) if isinstance(part, dict) else range(len(part)))
    text = dump(tree)
    mark = "a_mark_of_its_own"
    if isinstance(part, dict) and draw.random() < 0.5:
        part = {**part}
    before = part[key]
    part[key] = mark
    text = dump(tree).replace(mark, draw.choice(draw.choice([NUMBERS, WORDS, SHAPES])))
    part[key] = before
    return Input((verb, "a.yaml"), text, "comparisons")


def commands() -> dict[str, click.Command]:
    """Return every command of the command line."""
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group)
    return dict(group.commands)


# What a command's argument is when it is right, so that another can be wrong.
RIGHT = {
    "file": "a.yaml", "run": "done/a/1", "runs": "done/a/1", "recipe": "a.yaml", "what": "models",
    "name": "fedavg", "method": "tau_norm",
}  # fmt: skip


def from_commands(draw: random.Random) -> Input:
    """Return a command with its arguments and options, most of them wrong."""
    verb, command = draw.choice(sorted(commands().items()))
    words = [verb]
    for parameter in command.params:
        if parameter.name == "verbose":  # prints the traceback of a refusal
            continue
        wrong = draw.choice(draw.choice([NUMBERS, WORDS, SHAPES]))
        if parameter.name in ("output", "figures", "png", "folder"):
            wrong = draw.choice(["made/x", "/proc/x", "x" * 300, "", "a.yaml/x", "\0"])
        right = RIGHT.get(str(parameter.name), "")
        value = right if right and draw.random() < 0.7 else wrong.replace("\0", "")
        if isinstance(parameter, click.Argument):
            if right or draw.random() < 0.3:
                words.append(value)
        elif parameter.name == "method" or draw.random() < 0.25:
            words.append(parameter.opts[0])
            if not getattr(parameter, "is_flag", False):
                words.append(value)
    if draw.random() < 0.1:
        words.append(draw.choice(["--", "--no-such", "-x", "--help", "--version"]))
    text = dump({**BASE, "compare": {"rows": {"A": {}}}} if verb in ("compare", "sweep") else BASE)
    return Input(tuple(words), text, "commands")


def inputs(number: int, seed: int, methods: dict[str, dict[str, type]]) -> Iterator[Input]:
    """Yield so many inputs, each made when it is asked for."""
    draw = random.Random(seed)
    for _ in range(number):
        kind = draw.choices(range(5), [10, 6, 6, 3, 5])[0]
        made = (
            from_schema(draw) if kind == 0
            else from_methods(draw, methods) if kind == 1
            else from_text(draw) if kind == 2
            else from_comparisons(draw) if kind == 3
            else from_commands(draw)
        )  # fmt: skip
        yield made

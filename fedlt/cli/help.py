"""Help texts: verbs listed by task, and an example below each verb's options."""

from __future__ import annotations

from typing import Any, get_type_hints

import click
from typer.core import TyperCommand, TyperGroup

from fedlt.cli.screen import Screen, on_screen
from fedlt.cli.trust import rule_of
from fedlt.config.loading import execution_rule

# Task -> verb -> example; every example is a line of a page of docs/, where a test runs the line.
TASKS = {
    "Run an experiment": {
        "copy": "fedlt copy tables/digits mine",
        "data": "fedlt data prepare mine.yaml",
        "estimate": "fedlt estimate tables/five_digits",
        "inspect": "fedlt inspect experiments/quickstart.yaml",
        "generate": "fedlt generate experiments/digits_discl.yaml",
        "privacy": "fedlt privacy experiments/digits_private.yaml privacy.target_epsilon=4",
        "run": "fedlt run experiments/quickstart.yaml strategy=fedavg name=plain",
    },
    "Compare methods": {
        "compare": "fedlt compare experiments/quickstart.yaml --strategies fedavg,ditto name=two",
        "sweep": "fedlt sweep experiments/tables/digits.yaml",
        "reproduce": "fedlt reproduce fedloge --scale cpu",
        "leaderboard": "fedlt leaderboard runs/digits --output board",
    },
    "Look at runs, or change the heads of finished ones": {
        "status": "fedlt status runs",
        "report": "fedlt report runs/two --output report.html",
        "rescore": "fedlt rescore runs/quickstart/1 --shots 0-4//5-9",
        "realign": "fedlt realign runs/quickstart/1 --method tau_norm --tau 0.5",
        "export": "fedlt export runs/quickstart/1 -o model.pt2",
    },
    "Deploy a federation": {
        "app": "fedlt app experiments/quickstart.yaml quickstart-app",
    },
    "Find and add methods": {
        "list": "fedlt list strategies",
        "new": "fedlt new strategy my_method",
        "check": "fedlt check my_method.py:MyMethod mu=0.1",
    },
}
MODES = {  # options of every verb, before or after it
    "json": "Print one JSON document instead of tables.",
    "quiet": "Print no progress and no notes.",
    "verbose": "Print a line for every round, log lines, and the traceback of an error.",
}
_EXAMPLES = {verb: line for verbs in TASKS.values() for verb, line in verbs.items()}


class Verbs(TyperGroup):
    """Group of verbs whose help lists them by task, without cutting lines off."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section per task."""
        width = max(map(len, _EXAMPLES))
        for task, verbs in TASKS.items():
            with formatter.section(task):
                lines = [
                    (verb.ljust(width), _first_sentence(self.commands[verb])) for verb in verbs
                ]
                formatter.write_dl(lines)
        formatter.write_paragraph()
        formatter.write_text("'fedlt VERB --help' has the options of a verb, and an example.")


def _first_sentence(command: click.Command) -> str:
    return command.get_short_help_str(limit=1000)


class Verb(TyperCommand):
    """Command with the options of every verb, and a rule for user code.

    The help is plain for every version of typer and click: typer escapes brackets for HTML pages,
    and newer clicks drop the help of typer's arguments.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 (typer's)
        super().__init__(*args, **kwargs)
        self.params += [
            click.Option([f"--{name}"], is_flag=True, help=text) for name, text in MODES.items()
        ]

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 (what a verb returns)
        """Run the verb: read-only verbs execute no user code, other verbs announce the code."""
        before = ctx.parent.params if ctx.parent else {}
        modes = {name: bool(ctx.params.pop(name) or before.get(name)) for name in MODES}
        with on_screen(Screen(**modes)), execution_rule(rule_of(self.name)):
            return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write arguments and options with their help."""
        hints: dict[str, Any] = get_type_hints(self.callback, include_extras=True)
        lacking: list[Any] = [p for p in self.params if getattr(p, "help", "") is None]
        for parameter in lacking:
            parameter.help = hints[parameter.name].__metadata__[0].help
        super().format_options(ctx, formatter)
        for parameter in lacking:  # else click would write the options again
            parameter.help = None

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verb's example."""
        with formatter.section("Example"):
            formatter.write_text(_EXAMPLES[self.name or ""])

    def get_help(self, ctx: click.Context) -> str:
        """Return the help without escapes."""
        return super().get_help(ctx).replace("\\[", "[")

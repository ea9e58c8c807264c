"""Trust in users' code: a command that only reads executes none, the others name it first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from fedlt.config.loading import Rule, absolute_spec
from fedlt.errors import FedltError, shortened

if TYPE_CHECKING:
    from fedlt.config import Config

# These train, so that they execute the classes and functions that a file names.
EXECUTING = ("run", "generate", "compare", "sweep", "reproduce", "realign")


@dataclass
class Announcer:
    """Says on standard error which code is executed, once and before it is."""

    told: set[str] = field(default_factory=set)

    def __call__(self, spec: str, where: str) -> None:
        """Say so of the code of ``spec``, which stands under the key ``where``."""
        source = absolute_spec(spec).rpartition(":")[0]
        if source.endswith(".py") and not Path(source).is_file():
            return  # an error follows
        if source not in self.told:
            self.told.add(source)
            what = source if source.endswith(".py") else f"module {source}"
            typer.echo(f"executes {shortened(what, 500)} ({where})", err=True)


def _refuse(spec: str, where: str) -> None:
    """Refuse the code of ``spec``.

    Raises:
        FedltError: Always.
    """
    raise FedltError(f"{where}: {shortened(spec)!r} is not executed by a command that only reads")


def rule_of(verb: str | None) -> Rule:
    """Return what a command does before code of a user's is executed.

    The code that ``check`` executes is named on its command line: there is nothing to say.
    """
    if verb == "check":
        return lambda spec, where: None
    return Announcer() if verb in EXECUTING else _refuse


def check_trusted(config: Config, file: Path, overrides: Sequence[str], *, trust: bool) -> None:
    """Refuse code that ``file`` names, unless its user trusts the file.

    What the command line names is the user's own.

    Raises:
        FedltError: It names the code and the key.
    """
    from fedlt.config import user_code

    given = {override.partition("=")[0].strip() for override in overrides}
    for key, spec in user_code(config).items():
        typed = any(key == name or key.startswith(f"{name}.") for name in given)
        if not (typed or trust):
            raise FedltError(
                f"{file}: {key} names {shortened(spec, 300)}; inspect executes no code that a file "
                "names unless it is given --trust"
            )

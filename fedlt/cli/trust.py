"""Rules for user code: read-only commands execute none, other commands name the code first."""

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

# Verbs that train or build models, and so execute the classes and functions that a file names.
EXECUTING = ("run", "app", "estimate", "generate", "compare", "sweep", "reproduce", "realign",
             "export")  # fmt: skip


@dataclass
class Announcer:
    """Rule that names user code on standard error, once and before the code is executed."""

    told: set[str] = field(default_factory=set)

    def __call__(self, spec: str, where: str) -> None:
        """Print the user code ``spec`` of the key ``where``."""
        source = absolute_spec(spec).rpartition(":")[0]
        if source.endswith(".py") and not Path(source).is_file():
            return  # an error follows
        if source not in self.told:
            self.told.add(source)
            what = source if source.endswith(".py") else f"module {source}"
            typer.echo(f"executes {shortened(what, 500)} ({where})", err=True)


def _refuse(spec: str, where: str) -> None:
    """Refuse the user code ``spec``.

    Raises:
        FedltError: Always.
    """
    raise FedltError(f"{where}: {shortened(spec)!r} is not executed by a command that only reads")


def rule_of(verb: str | None) -> Rule:
    """Return the rule of a verb for user code.

    ``check`` prints nothing, since its command line names the code.
    """
    if verb == "check":
        return lambda spec, where: None
    return Announcer() if verb in EXECUTING else _refuse


def check_trusted(config: Config, file: Path, overrides: Sequence[str], *, trust: bool) -> None:
    """Raise if ``file`` names user code, unless ``trust`` is set.

    Code that the command line names is always allowed.

    Raises:
        FedltError: If code is refused, with the code and the key.
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

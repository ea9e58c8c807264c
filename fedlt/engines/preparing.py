"""All that is made and tried before the first round of a run, and before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedlt.config.loading import check_spec
from fedlt.data.datasets import check_name as check_data_set
from fedlt.data.partition import read_content
from fedlt.engines.auto import weigh_engines
from fedlt.engines.rehearsal import Rehearsal, rehearse
from fedlt.errors import FedltError
from fedlt.evaluation.patience import check_metric
from fedlt.federation import prepare_parties
from fedlt.federation.faults import Faults
from fedlt.federation.feature_cache import check_settings
from fedlt.federation.start import check_weights
from fedlt.flower.server_half import make_server_half
from fedlt.machine.compiler import check_compiler
from fedlt.machine.devices import find_device
from fedlt.models.backbones import check_backbone
from fedlt.runs.directory import Action, RunDirectory
from fedlt.runs.fingerprint import fingerprint

if TYPE_CHECKING:
    from fedlt.client import ClientPlugin
    from fedlt.config import Config
    from fedlt.engines.probe import Probe
    from fedlt.federation import Parties
    from fedlt.federation.evaluator import GenericModel
    from fedlt.flower.adapter import ServerHalf
    from fedlt.progress import Progress
    from fedlt.runs.fingerprint import Fingerprint
    from fedlt.strategy import Strategy


@dataclass(frozen=True)
class PreparedRun:
    """A run before its first round."""

    parties: Parties
    server: ServerHalf
    found: Fingerprint
    generic: GenericModel  # kind of generic model
    notes: list[str]  # lines for the user
    engine: str  # name of the engine; never auto
    probe: Probe | None = None  # the measured cost, if it was measured

    @classmethod
    def tried(
        cls,
        parties: Parties,
        server: ServerHalf,
        found: Fingerprint,
        rehearsal: Rehearsal,
        engine: str,
        generic: GenericModel | None = None,
        probe: Probe | None = None,
    ) -> PreparedRun:
        """Return the run after its rehearsal; ``generic`` replaces the kind that was found."""
        kind, stop = generic or rehearsal.generic, parties.view.config.stop
        if stop is not None:
            check_metric(stop, has_generic=kind != "none")
        notes = parties.observer.notes() + rehearsal.notes()
        return cls(parties, server, found, kind, notes, engine, probe)


def decide_action(config: Config, *, resume: bool, overwrite: bool) -> Action:
    """Return the action that a run asks for in its folder.

    Raises:
        FedltError: If the folder does not allow it; but a mistake in the configuration is named
            first, since a corrected configuration may be that of the folder.
    """
    try:
        return RunDirectory.of(config).decide(config, resume=resume, overwrite=overwrite)
    except FedltError:
        check_data_set(config.data.dataset)
        check_spec(config.data.dataset, "data.dataset")
        if config.partition.file is not None:
            read_content(config.partition.file, f"partition.file {config.partition.file!r}")
        check_backbone(**config.model.network())
        check_weights(config.model.weights)
        check_settings(config)
        raise


def prepare_run(
    config: Config,
    method: tuple[Strategy, ClientPlugin],
    directory: RunDirectory,
    action: Action,
    progress: Progress,
    *,
    engine: str,
    estimate: bool,
) -> PreparedRun:
    """Load the data, build the model, and try the method.

    Args:
        config: The run.
        method: Its strategy and client plugin.
        directory: Its directory.
        action: ``start`` or ``resume``.
        progress: Is told what takes long.
        engine: Name of the engine.
        estimate: True to estimate the time of the run.

    Raises:
        FedltError: If the run cannot be started or resumed.
    """
    if config.engine.compile:
        check_compiler(find_device(config.engine.device).type)
    parties = prepare_parties(config, *method, progress=progress)
    found = fingerprint(config, parties.observer.data)
    if action == "resume":
        directory.check(found, purpose="resumed")
    server = make_server_half(parties.view, Faults.of(parties.observer))
    rehearsal, probe = rehearse(parties, server), None
    if action == "start" and (estimate or engine == "auto"):
        choice = weigh_engines(engine, server, rehearsal.host, parties)
        engine, probe = choice.name, choice.probe
        for line in choice.lines():
            progress.note(line)
    return PreparedRun.tried(parties, server, found, rehearsal, engine, probe=probe)

"""``fedlt inspect``: draw and count the partition of a file; trains and writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedlt.cli.arguments import FileArgument, Overrides
from fedlt.cli.destinations import check_place
from fedlt.cli.screen import screen
from fedlt.cli.trust import Announcer, check_trusted

if TYPE_CHECKING:
    from fedlt.config import Config
    from fedlt.data import FederatedData
    from fedlt.federation import Observer
    from fedlt.report.partition_plot import PartitionView


def inspect(
    file: FileArgument,
    overrides: Overrides = None,
    png: Annotated[
        Path | None, typer.Option("--png", metavar="PATH", help="Draw the heat map there, too.")
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Execute the Python files that FILE names.")
    ] = False,
) -> None:
    """Show the class counts of each client; trains nothing.

    Of a comparison or a recipe, the common part of all rows is shown.

    Python code named in FILE runs only with --trust; code named on the command line runs.
    """
    from fedlt.comparing.common import read_common
    from fedlt.config.experiments import find_experiment
    from fedlt.config.loading import execution_rule

    path = find_experiment(file)
    common, lines = read_common(path, overrides or [])
    config = common.runs()[0]
    check_place(png, "--png")
    check_trusted(config, path, overrides or [], trust=trust)
    with execution_rule(Announcer()):
        _inspect(config, png, lines)


def _inspect(config: Config, png: Path | None, lines: Sequence[str]) -> None:
    from fedlt.data import prepare_data
    from fedlt.data.batches import passes_of
    from fedlt.data.shots import groups_note
    from fedlt.report.partition_plot import cost_text, draw_partition, estimate_cost, show_partition

    data = prepare_data(config.data, config.partition, seed=config.seed)
    observer = _observer(config, data)
    cost = estimate_cost(
        data.client_counts,
        clients_per_round=config.clients_per_round,
        passes=passes_of(data.client_sizes, config.local),
        model_bytes=_shared_bytes(observer),
    )
    view = _view(observer)
    screen().show(show_partition(view))
    groups = groups_note(observer.shots, data.class_counts)
    notes = [*lines, groups, data.note(), *data.partition_notes, data.missing_note()]
    notes.append(data.strangers_note(named=True))
    notes = [note for note in notes if note]
    screen().tell(*notes, cost_text(cost, config.rounds))
    if png is not None:
        png.parent.mkdir(parents=True, exist_ok=True)
        draw_partition(view, png)
        screen().tell(png)
    screen().document(
        {
            "name": config.name,
            "dataset": data.name,
            "seed": config.seed,
            "rounds": config.rounds,
            "classes": data.class_names,
            "client_counts": data.client_counts,  # (K, C) training images
            "groups": dict(observer.shots.items()),
            "round": {
                "images": cost.images,
                "bytes_down": cost.bytes_down,
                "bytes_up": cost.bytes_up,
            },
            "notes": notes,
            "files": [png] if png else [],
        }
    )


def _observer(config: Config, data: FederatedData) -> Observer:
    from fedlt.engines import check_engine
    from fedlt.federation import Parties
    from fedlt.methods.lookup import resolve_client, resolve_strategy

    check_engine(config.engine.name)
    return Parties.of(config, resolve_strategy(config), resolve_client(config), data).observer


def _view(observer: Observer) -> PartitionView:
    from fedlt.evaluation.headline import ScoredSet
    from fedlt.report.partition_plot import PartitionView

    config, data, groups = observer.config, observer.data, observer.shots
    words = "no shot groups" if groups.scheme == "none" else f"shot groups by {groups.scheme}"
    title = f"{config.name}: {data.name}, seed {config.seed}, {words}"
    scored_on = ScoredSet.of(data.eval_labels, data.num_classes, data.split)
    names = data.client_names if config.report.client_names else ()
    return PartitionView(
        data.client_counts, data.class_names, dict(groups.items()), title, scored_on, names
    )


def _shared_bytes(observer: Observer) -> int:
    """Return the bytes of the model's shared part, sent each way per client."""
    model = observer.build_model()
    state = model.state()
    return sum(state[n].numel() * state[n].element_size() for n in model.names("shared"))

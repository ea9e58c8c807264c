"""Checks by whole runs of two rounds, and checks of the object itself."""

from __future__ import annotations

import pickle
import re

import torch

from fedlt.check.findings import Note, Violation
from fedlt.check.source_lines import Places, place, root_cause
from fedlt.check.tiny_federation import ROUNDS, Subject
from fedlt.check.tiny_runs import APART, Finished, run_whole
from fedlt.engines import engine_class
from fedlt.engines.rehearsal import rehearse
from fedlt.errors import FedltError, one_line
from fedlt.flower.server_half import make_server_half

STACK_ENDING = "; 'serial' and 'ray' can"


def builds(subject: Subject) -> str:
    """Check that the object can be made; ``build``, ``init``, forward pass and every head work."""
    try:
        parties = subject.parties
        generic = rehearse(parties, make_server_half(parties.view)).generic
    except FedltError as error:
        cause = root_cause(error)
        places = Places(subject) if "parties" in vars(subject) else None
        raise Violation(
            str(error),
            change="mend what the line names; the contract is in fedlt/strategy.py and "
            "fedlt/client.py",
            where=places.of_error(cause.__traceback__) if places else "",
        ) from error
    kinds = {"average": ", a generic model of averaged personal parts", "none": ", personal only"}
    return f"{subject.value!r}{kinds.get(generic, '')}"


def trains(subject: Subject) -> str:
    """Check that two rounds on the serial engine have finite losses and move parameters."""
    try:
        finished = subject.reference
    except (Exception, SystemExit) as error:
        cause = root_cause(error)
        text = one_line(cause)
        change = "mend what raises there"
        if "with a gradient" in text:
            change = (
                "return a scalar that depends on trained parameters: no detach(), item() or "
                "torch.no_grad() around it"
            )
        places, trace = Places(subject), cause.__traceback__
        verbs = ("objective", "loss", "local_update", "aggregate")
        where = places.of_error(trace) or places.of_verb(trace, *verbs)
        line = f"a run of {ROUNDS} rounds fails: {text}"
        raise Violation(line, change=change, where=where) from error
    result = finished.result
    if result["excluded"]:
        raise Violation(
            f"updates that are not finite: [round, client] {result['excluded']}",
            change="look for a division by zero or a logarithm of zero in the loss",
            where=place(subject, "objective", "loss", "local_update"),
        )
    still = _unmoved(subject, finished)
    losses = " -> ".join(f"{row['train/loss']:.3f}" for row in finished.rows)
    return f"loss {losses}" + (f"; never moved: {', '.join(still)}" if still else "")


def _unmoved(subject: Subject, finished: Finished) -> list[str]:
    """Return the shared parameters that no round has moved; raise if no parameter moved."""
    server = make_server_half(subject.parties.view)
    before, after = server.state.broadcast, finished.groups["broadcast"]
    names = server.model.parameter_names("shared")
    still = [name for name in names if torch.equal(before[name], after[name])]
    has_memory = any(group.startswith("personal/") for group in finished.groups)
    if len(still) == len(names) and not has_memory:
        raise Violation(
            f"after {ROUNDS} rounds no parameter has moved",
            change="train in local_update with client.train, and return aggregate's new broadcast",
            where=place(subject, "local_update", "aggregate", "objective"),
        )
    return still


def resumes(subject: Subject) -> str:
    """Check that a run that is stopped and resumed ends as an uninterrupted run."""
    resumed = run_whole(subject.config, stop_after=1)
    odd = resumed.differs_from(subject.reference)
    if odd:
        raise Violation(
            f"a resumed run differs in {odd}",
            change="what must survive lies in ServerState (broadcast, private) or in personal "
            "tensors, nothing in module variables",
            where=place(subject, "local_update", "aggregate", "objective", "loss", "init"),
        )
    return "a run stopped after round 1 and resumed has the same bits"


def equal_on_engines(subject: Subject) -> str:
    """Check equal bits with a new worker for every job, and on Ray if the subject asks for Ray."""
    engines: dict[str, dict[str, object]] = {"workers of their own": {"name": APART}}
    if subject.ray:
        engines["Ray with 2 workers"] = {"name": "ray", "workers": 2}
    for title, engine in engines.items():
        changed = subject.config.engine.model_copy(update=engine)
        other = run_whole(subject.config.model_copy(update={"engine": changed}))
        odd = other.differs_from(subject.reference)
        if odd:
            raise Violation(
                f"on {title} a run differs from the serial one in {odd}",
                change="keep nothing in the process between calls; read neither clock nor global "
                "generators",
                where=place(subject, "local_update", "objective", "loss", "aggregate", "init"),
            )
    return f"the bits of serial on {' and '.join(engines)}"


def is_picklable(subject: Subject) -> str:
    """Check that the object is a value: frozen, and equal after pickling for the workers."""
    value = subject.value
    fields = "declare hyperparameters as fields of plain types: numbers, text, tuples of them"
    try:
        copy = pickle.loads(pickle.dumps(value))
    except Exception as error:
        line = f"it cannot be pickled: {one_line(error)}"
        raise Violation(line, change=fields, where=place(subject, "__init__")) from error
    if copy != value:
        line = "its pickled copy is not equal to it"
        raise Violation(line, change=fields, where=place(subject, "__eq__", "__init__"))
    return "frozen, and equal after pickling"


def is_stackable(subject: Subject) -> str:
    """Return a line if the stacked engine can run the class, otherwise a note with the reason."""
    changed = subject.config.engine.model_copy(update={"name": "stacked"})
    config = subject.config.model_copy(update={"engine": changed})
    whole = Subject(config, subject.section)
    server = make_server_half(whole.parties.view)
    try:
        with engine_class("stacked")(whole.parties) as engine:
            engine.rehearse(server)
    except FedltError as error:
        reason = re.sub(r"^.*?(cannot run .*?|a trial on \d+ images fails): ", "", str(error))
        return Note(f"not stackable: {reason.removesuffix(STACK_ENDING)}")
    return "runs on the stacked engine"

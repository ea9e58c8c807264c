"""Personal states that do not fit: the same bits whatever the budget, on every engine, resumed."""

from __future__ import annotations

import pytest

from fedlt.runs.checkpoints import state_folder
from fedlt.runs.personal_states import PersonalStates

DITTO = '''
from dataclasses import dataclass, replace

from fedlt.strategy import Strategy


@dataclass(frozen=True)
class Ditto(Strategy):
    """A whole personal model, pulled to the shared one (Li et al., ICML 2021)."""

    lam: float = 0.1

    def local_update(self, client):
        answer = client.update(client.train(self.objective))
        sums = {name: tensor.clone() for name, tensor in answer.sums.items()}
        own = {n.removeprefix("own/"): t for n, t in client.personal.items()}
        client.model.load({**client.broadcast, **own}, client.model.names("shared"))

        def pulled(client, batch):
            return self.objective(client, batch) + self.lam / 2 * client.squared_distance(
                client.broadcast
            )

        client.train(pulled)
        state = client.model.state()
        kept = {f"own/{n}": state[n].clone() for n in client.model.names("shared")}
        return replace(answer, sums=sums, personal={**answer.personal, **kept})

    def personal_weights(self, model, broadcast, personal):
        return {n.removeprefix("own/"): t for n, t in personal.items()}
'''


@pytest.fixture(params=["fedloge", "ditto", "fedloge-local"])
def changes(request, tmp_path):
    """Heads, whole models, and heads with BatchNorm, five rounds over all clients."""
    path = tmp_path / "mine.py"
    path.write_text(DITTO)
    name = f"{path}:Ditto" if request.param == "ditto" else "fedloge"
    norm = "local" if request.param == "fedloge-local" else "average"
    return {"strategy": name, "batchnorm": norm, "rounds": 4, "checkpoint": {"every": 2}}


def test_nothing_in_memory_gives_the_same_bits(lab, changes, monkeypatch):
    """Budget 0: every state is read from disk for every task, evaluation and checkpoint."""
    expected = lab.run(**changes)
    held = []
    make_room = PersonalStates._make_room

    def watch(states, goal):
        make_room(states, goal)
        held.append(states._bytes)

    monkeypatch.setattr(PersonalStates, "_make_room", watch)
    spilled = lab.run(**changes, engine={"personal_memory": 0})
    assert len(held) > 20
    assert set(held) == {0}
    assert spilled.bits == expected.bits
    assert list(state_folder(spilled.directory.checkpoints).iterdir())


def test_a_spilled_run_resumes_to_the_same_end(lab, changes):
    stopped = lab.stopped(3, **changes, engine={"personal_memory": 0})
    assert lab.resume(stopped).bits == lab.run(**changes).bits


@pytest.mark.ray
@pytest.mark.parametrize(
    "changes",
    [
        "fedloge-local",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("fedloge", "ditto")),
    ],
    indirect=True,
)
def test_a_spilled_run_has_the_same_bits_on_ray(lab, changes):
    engine = {"name": "ray", "workers": 2, "personal_memory": 0}
    assert lab.run(**changes, engine=engine).bits == lab.run(**changes).bits

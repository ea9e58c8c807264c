"""What a user's method gets wrong: one line at the wrong verb, and nothing half-written."""

from __future__ import annotations

import pytest

from fedlt.errors import FedltError, RunError

CASES = {
    "no_head": (
        "def personal(self, model, broadcast, personal):\n        return {}",
        "returns no head",
    ),
    "bad_head": (
        "def generic(self, model, broadcast):\n        return {'x': lambda f: f}",
        "head 'x' gives shape",
    ),
    "forgets": (
        "def init(self, model):\n        state = super().init(model)\n"
        "        state.broadcast.pop('heads.head.weight')\n        return state",
        "no value given for 'heads.head.weight'",
    ),
    "build": ("def build(self, model):\n        raise KeyError('no')", "KeyError: 'no'"),
}
LATE = {
    "loss": (
        "def objective(self, client, batch):\n        return 1.0",
        "the loss must be a scalar tensor with a gradient, not float",
    ),
    "raises": (
        "def objective(self, client, batch):\n        raise OSError('no disk')",
        "raised in client",
    ),
    "only": (
        "def local_update(self, client):\n"
        "        return client.update(client.train(self.objective, only=['heads.haed.weight']))",
        "nearest: 'heads.head.weight'",
    ),
    "aggregate": (
        "def aggregate(self, state, total):\n        return None",
        "must return a ServerS",
    ),
    "extras": (
        "def local_update(self, client):\n        u = super().local_update(client)\n"
        "        extra = client.data.labels.float()[: 1 + client.cid]\n"
        "        return type(u)({**u.sums, 'x': extra}, u.weight, u.metrics, u.personal)",
        "its update has 'x' of shape",
    ),
    "weight": (
        "def local_update(self, client):\n        return client.update({}, weight=0.0)",
        "weight 0.0 is not above 0",
    ),
}


def written(tmp_path, body: str) -> str:
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import dataclass\nfrom strategies.fedavg import FedAvg\n\n\n"
        f"@dataclass(frozen=True)\nclass Mine(FedAvg):\n    {body}\n"
    )
    return f"{file}:Mine"


@pytest.mark.parametrize("case", CASES)
def test_wrong_before_the_first_round(lab, tmp_path, case):
    body, part = CASES[case]
    with pytest.raises(FedltError) as caught:
        lab.run(strategy={"name": written(tmp_path, body)})
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("config.yaml"))


@pytest.mark.parametrize("case", LATE)
def test_wrong_in_a_round(lab, tmp_path, case):
    body, part = LATE[case]
    with pytest.raises(RunError) as caught:
        lab.run(strategy={"name": written(tmp_path, body)})
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_plain_sums_carry_no_weight(lab, tmp_path):
    """Each client sends 1 as a plain tensor: their sum is the cohort's size, 3."""
    body = (
        "def local_update(self, client):\n"
        "        u = super().local_update(client)\n"
        "        one = client.data.labels.new_ones(1).float()\n"
        "        return type(u)(u.sums, u.weight, u.metrics, u.personal, plain={'n': one})\n\n"
        "    def aggregate(self, state, total):\n"
        "        after = super().aggregate(state, total)\n"
        "        return type(after)(after.round, after.broadcast, {'n': total.plain['n']})"
    )
    outcome = lab.run(strategy={"name": written(tmp_path, body)})
    assert outcome.checkpoint.tensors["private"]["n"].tolist() == [3.0]


def test_a_refresh_changes_a_model_kept_under_names_of_its_own(lab, tmp_path):
    """Ditto keeps v_k as ``own/...``; what refresh returns is what is scored."""
    body = (
        "def init_personal(self, client):\n"
        "        return {f'own/{n}': client.broadcast[n] for n in client.model.names('shared')}\n\n"
        "    def personal_weights(self, model, broadcast, personal):\n"
        "        return {n: personal[f'own/{n}'] for n in model.names('shared')}\n\n"
        "    def local_update(self, client):\n"
        "        return client.update(client.train(self.objective), personal=client.personal)\n\n"
        "    def refresh(self, client, *, scope, epochs):\n"
        "        super().refresh(client, scope=scope, epochs=epochs)\n"
        "        state = client.model.state()\n"
        "        return {f'own/{n}': state[n] for n in client.model.names('shared')}"
    )
    name = written(tmp_path, body)
    still = lab.run(strategy={"name": name}).rows[-1]
    fresh = {"refresh": {"scope": "all", "epochs": 3}}
    moved = lab.run(strategy={"name": name}, personal=fresh).rows[-1]
    assert still["generic/accuracy"] == moved["generic/accuracy"]
    assert still["personal/accuracy"] != moved["personal/accuracy"]

"""Methods that are other methods: with a hyperparameter switched off, or by what they share.

Every run here is compared bit for bit; the session's reference runs are used where there are some.
"""

from __future__ import annotations

import pytest
import torch

OFF = [  # section, method, hyperparameters that switch its idea off, what is left, other changes
    ("strategy", "fedprox", {"mu": 0}, {}, {}),
    ("strategy", "fedsam", {"rho": 0}, {}, {}),
    ("strategy", "fedswa", {"rho": 1, "alpha": 1}, {}, {}),
    ("strategy", "fedntd", {"beta": 0.0}, {}, {}),
    ("strategy", "fedlmd", {"beta": 0.0}, {}, {}),
    ("strategy", "moon", {"mu": 0}, {}, {}),
    ("client", "mixup", {"alpha": 0.0}, {}, {}),
    ("client", "infobatch", {"ratio": 0.0}, {}, {}),
    ("client", "logit_adjustment", {"tau": 0.0}, {}, {}),
    ("client", "class_balanced", {"beta": 0.0}, {}, {}),
    *(
        ("client", "discl", {"tail_below": 0.0, "curriculum": c}, {}, {"strategy": "fedloge"})
        for c in ("diverse_to_specific", "adaptive", "oversample")
    ),
    *(
        ("client", "discl", {"tail_below": 0.0, "loss": loss}, {"client": loss}, changes)
        for loss, changes in (
            ("cross_entropy", {"engine": {"name": "stacked"}}),
            ("balanced_softmax", {"engine": {"name": "stacked"}}),
            ("mdcs", {"rounds": 2}),
        )
    ),
]
SAME = {  # two ways to write one method
    "fedbn": ({"strategy": "fedbn"}, {"batchnorm": "local"}),
    "fedloge_experts": ({"strategy": "fedloge_experts"}, {"strategy": "fedloge"}),
    "fedrod": ({"strategy": "fedrod", "client": "balanced_softmax"}, {"strategy": "fedrod"}),
    "logit_adjustment": (
        {"client": {"name": "logit_adjustment", "tau": 1.0}},
        {"client": "balanced_softmax"},
    ),
    "schedule": ({"local": {"schedule": {"drops": [0.4], "factor": 1.0}}}, {}),
    **{
        f"fedavg_ft-{scope}": (
            {"strategy": {"name": "fedavg_ft", "scope": scope, "epochs": 2}},
            {"personal": {"refresh": {"scope": scope, "epochs": 2}}},
        )
        for scope in ("all", "head")
    },
    **{
        f"fedsam-{client}": (
            {"client": client, "local": {"sam_rho": 0.1}},
            {"client": client, "strategy": {"name": "fedsam", "rho": 0.1}},
        )
        for client in ("cross_entropy", "focal")
    },
}
ALONE = {"partition": {"num_clients": 1}, "clients_per_round": 1}
BESIDE = {  # what a method trains beside the tensors of another, which it leaves alone
    "fedala, eta 0": ({"strategy": {"name": "fedala", "eta": 0.0}}, {}),
    "centralised, one client": ({"strategy": "centralised", **ALONE}, ALONE),
    "fedproto, lam 0": (
        {"strategy": {"name": "fedproto", "lam": 0.0}, "clients_per_round": None},
        {"strategy": "local_only", "clients_per_round": None},
    ),
    **{
        f"{name}, {policy} BatchNorm": (
            {"strategy": name, "batchnorm": policy},
            {"batchnorm": policy},
        )
        for name in ("ditto", "apfl")
        for policy in ("average", "local")
    },
}


@pytest.mark.parametrize(
    ("section", "name", "off", "left", "changes"), OFF, ids=[f"{case[1]}-{case[2]}" for case in OFF]
)
def test_what_is_switched_off_leaves_the_plain_method(
    lab, reference, section, name, off, left, changes
):
    """All that the plain run leaves behind is the same; a method may keep more beside it.

    Aside are the steps behind personal models, of which MOON has none. Switched on, the same
    method does something else.
    """
    pool = lab.pool() if name == "discl" else {}
    loss = {"loss": off["loss"]} if "loss" in off else {}
    found = reference(**{**changes, section: {"name": name, **pool, **off}}).bits
    plain = dict(reference(**changes, **left).bits)
    del plain["participants/steps"]
    assert {key: found.get(key) for key in plain} == plain
    at_work = reference(**{**changes, section: {"name": name, **loss} if loss else name}).bits
    assert {key: at_work.get(key) for key in plain} != plain


@pytest.mark.parametrize(("changes", "other"), SAME.values(), ids=SAME)
def test_two_ways_to_write_a_method_give_the_same_bits(reference, changes, other):
    assert reference(**changes).bits == reference(**other).bits


@pytest.mark.parametrize(("changes", "plain"), BESIDE.values(), ids=BESIDE)
def test_a_method_leaves_the_model_beside_it_alone(reference, changes, plain):
    found, wanted = reference(**changes).groups, reference(**plain).groups
    assert any(wanted.values())
    for group, tensors in wanted.items():
        for name, tensor in tensors.items():
            assert torch.equal(found[group][name], tensor), name

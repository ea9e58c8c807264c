"""``engine.compile``: the same training to a tolerance, on every engine that trains one by one."""

from __future__ import annotations

import pytest
import torch

from fedlt.check import TINY
from fedlt.config import Config
from fedlt.engines.serial import SerialEngine
from fedlt.errors import FedltError
from fedlt.machine import compiler


@pytest.fixture
def fresh():
    compiler.check_compiler.cache_clear()
    torch.compiler.reset()  # what other tests have compiled
    yield
    compiler.check_compiler.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fedavg", "fedloge"])
def test_compiled_rounds_agree_with_eager_ones(lab, strategy):
    """Float32 sums in another order: relative differences of some 1e-6 after two rounds."""
    eager, compiled = (
        lab.run(engine={"name": "serial", "compile": flag}, strategy=strategy, rounds=2)
        for flag in (False, True)
    )
    for group, tensors in eager.groups.items():
        for name, tensor in tensors.items():
            torch.testing.assert_close(
                compiled.groups[group][name], tensor, rtol=1e-3, atol=1e-4, msg=f"{group} {name}"
            )


@pytest.mark.slow
@pytest.mark.parametrize("flag", [True, False])
def test_an_engine_compiles_if_asked(lab, monkeypatch, flag):
    """Else the tests beside this one would compare eager rounds with eager rounds."""
    seen = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **_: seen.append(module))
    with SerialEngine(lab.federation(engine={"name": "serial", "compile": flag})) as engine:
        assert seen == [engine._host.worker.model.backbone] * flag


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("strategy", ["fedavg", "fedloge"])
def test_compiled_rounds_on_ray_have_the_bits_of_serial_ones(lab, strategy):
    """Each shape has a code of its own, so it does not matter which batches a worker has seen."""
    engines = [{"name": "serial"}, *({"name": "ray", "workers": number} for number in (1, 2))]
    found = [lab.run(engine={**one, "compile": True}, strategy=strategy) for one in engines]
    assert found[0].bits == found[1].bits == found[2].bits


@pytest.mark.slow
def test_without_a_compiler_one_line_says_so(lab, fresh, monkeypatch):
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, "no-such-compiler"))
    with pytest.raises(FedltError, match=r"^engine.compile: PyTorch cannot compile for cpu here"):
        lab.run(engine={"name": "serial", "compile": True})


def test_gradients_of_single_images_are_refused():
    given = TINY | {"engine": {"compile": True}, "clients_per_round": 2}
    rules = {"mechanism": "sample", "norm": 1.0, "noise_multiplier": 1.0}
    with pytest.raises(ValueError, match=r"leave engine\.compile off"):
        Config.model_validate(given | {"privacy": rules})


def test_stacked_refuses(lab):
    with pytest.raises(FedltError, match=r"engine\.name=stacked trains many models as one"):
        lab.run(engine={"name": "stacked", "compile": True})

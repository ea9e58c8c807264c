"""Stacked models: vmap over functional_call gives what separate runs give, buffers included."""

import copy

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from fedlt.losses import balanced_softmax
from fedlt.models import LinearHead, Model, build_model


def make(name: str, norm: str) -> Model:
    model = build_model(name, image_shape=(2, 8, 8), num_classes=3, width=4, norm=norm, seed=1)
    model.add_head("main", LinearHead(model.num_features, 3))
    return model.train()


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("name", ["cnn", "resnet8", "resnet18"])
def test_stacked_gradients_and_statistics_agree_with_separate_runs(name: str, norm: str) -> None:
    models = [make(name, norm), make(name, norm)]
    generator = torch.Generator().manual_seed(0)
    for parameter in models[1].parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    images = torch.randn(2, 6, 2, 8, 8, generator=generator)
    labels = torch.randint(0, 3, (2, 6), generator=generator)
    prior = torch.randn(2, 3, generator=generator)
    scratch = copy.deepcopy(models[0])
    trainable = scratch.parameter_names()

    def objective(weights: dict, buffers: dict, x: Tensor, y: Tensor, offset: Tensor) -> tuple:
        logits = functional_call(scratch, {**weights, **buffers}, (x,))
        return balanced_softmax(logits, y, offset), buffers

    states = [model.state() for model in models]
    stacked = {name: torch.stack([state[name] for state in states]) for name in states[0]}
    weights = {name: stacked[name] for name in trainable}
    buffers = {name: stacked[name] for name in scratch.buffer_names()}
    gradients, after = vmap(grad(objective, has_aux=True))(weights, buffers, images, labels, prior)

    for k, model in enumerate(models):
        balanced_softmax(model(images[k]), labels[k], prior[k]).backward()
        for path, parameter in model.named_parameters():
            torch.testing.assert_close(gradients[path][k], parameter.grad, rtol=1e-3, atol=1e-5)
        for path, buffer in model.named_buffers():
            torch.testing.assert_close(after[path][k], buffer)
    if norm == "batch":
        assert all(after[name].eq(1).all() for name in scratch.integer_names())

"""Sizes of a foreign backbone, found by a trial pass, and its features as streams.

A network of a library or of a user returns features (B, D), or (B, S, D) for S streams. The rest of
fedlt reads (B, S, D).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedlt.config.raised import described
from fedlt.errors import FedltError
from fedlt.models.modes import evaluating

ImageShape = tuple[int, int, int]  # (Ch, H, W)
_TRIAL = 2  # images


def as_backbone(
    network: object, image_shape: ImageShape, *, name: str, knows_sizes: bool = True
) -> nn.Module:
    """Return a network with output (B, S, D), and ``num_features`` (D) and ``num_streams`` (S).

    The network evaluates two black images; torch's random state is as before.

    Args:
        network: The module, changed in place.
        image_shape: (Ch, H, W) of the images.
        name: The network's name in the file, for errors.
        knows_sizes: True to refuse a network whose own attributes say other sizes; False to replace
            them: timm's ``num_features`` of some networks is the width before a last layer.

    Raises:
        FedltError: If the network is no module, fails on such images, returns something else than
            features, or has an attribute that says another size.
    """
    if not isinstance(network, nn.Module):
        kind = type(network).__name__
        raise FedltError(f"model.name: {name!r} must return a torch module, not a {kind}")
    features = _try(network, image_shape, name)
    if features.ndim == 2:
        network.register_forward_hook(_one_stream)
    sizes = {"num_features": features.shape[-1], "num_streams": features.shape[1:-1].numel()}
    for attribute, size in sizes.items():
        given = getattr(network, attribute, size)
        if given != size and knows_sizes:
            raise FedltError(
                f"model.name: {name!r} says {attribute} = {given!r}, and returns "
                f"{tuple(features.shape)} for {_TRIAL} images: {attribute} is {size}"
            )
        setattr(network, attribute, size)
    return network


def _try(network: nn.Module, image_shape: ImageShape, name: str) -> Tensor:
    """Return the features of two black images, (2, D) or (2, S, D)."""
    before = torch.get_rng_state()
    try:
        with evaluating(network), torch.no_grad():
            output = network(torch.zeros(_TRIAL, *image_shape))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit, too
        size = " x ".join(map(str, image_shape))
        raise FedltError(
            f"model.name: {name!r} fails on images of {size} (channels, height, width): "
            f"{described(error)}"
        ) from error
    finally:
        torch.set_rng_state(before)
    if not isinstance(output, Tensor):
        kind = type(output).__name__
        raise FedltError(f"model.name: {name!r} must return a tensor of features, not a {kind}")
    if output.ndim not in (2, 3) or len(output) != _TRIAL or not output.is_floating_point():
        raise FedltError(
            f"model.name: {name!r} must return features (B, D), or (B, S, D) for S streams; for "
            f"{_TRIAL} images it returns {tuple(output.shape)} of {output.dtype}"
        )
    return output


def _one_stream(network: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.unsqueeze(1)

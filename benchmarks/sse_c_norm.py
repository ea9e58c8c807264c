"""What FedLoGe's sparse classifier does before the first step, for several networks.

    FEDLT_DATA=... python benchmarks/sse_c_norm.py [--seeds 2] [--only resnet8 cnn]

prints one JSON object. For each network, in the mean over seeds, on the first training images of
CIFAR-10 (or scikit-learn's digits), with class vectors of norm 0.1 and batch statistics:

* ``features`` D; ``feature_norm``, the mean length of the pooled features; ``feature_size``, their
  root mean square; ``spread``, the root mean square distance of an image's features from the mean;
* ``logits``, the standard deviation of a logit over images;
* ``gradient``, the mean squared norm of the gradient in the backbone, over batches of 8, and its
  least and most over the seeds; ``pace``, the loss that a step takes off: lr / (1 - momentum) times
  the gradient, at the published lr 0.03 and momentum 0.5;
* ``norm_by_pace``, the norm at which the pace is that of the first network, which has the published
  norm 0.1; ``norm_by_logits``, the norm at which the logits' deviation is that network's.
"""

from __future__ import annotations

import argparse
import json
import math
from statistics import fmean
from typing import Any

import torch

from fedlt.data.augment import normalize
from fedlt.data.datasets import load_dataset
from fedlt.models import FixedHead
from fedlt.models.etf import sparse_etf
from fedlt.models.etf_start import BATCH, BATCHES, squared_gradient
from fedlt.models.factory import build_model

NORM, LR, MOMENTUM = 0.1, 0.03, 0.5  # of the published runs
IMAGES = 256  # for the features
CASES = [  # network, width, data set; the first one is the published one
    ("resnet18", 64, "cifar10"),
    ("resnet18", 32, "cifar10"),
    ("resnet18", 16, "cifar10"),
    ("resnet18", 8, "cifar10"),
    ("resnet32", 16, "cifar10"),
    ("resnet8", 16, "cifar10"),
    ("resnet8", 64, "cifar10"),
    ("resnet8", 128, "cifar10"),
    ("cnn", 16, "cifar10"),
    ("cnn", 128, "cifar10"),
    ("cnn", 16, "digits"),
    ("mlp", 64, "cifar10"),
    ("mlp", 512, "cifar10"),
    ("mlp", 64, "digits"),
    ("fedavg_cnn", 32, "cifar10"),
]


def measure(network: str, width: int, name: str, seed: int) -> dict[str, float]:
    """Return the numbers of a network for one seed."""
    data = load_dataset(name, root=None, options={})
    pixels, labels = data.train_images[:IMAGES], torch.as_tensor(data.train_labels[:IMAGES])
    images = normalize(torch.as_tensor(pixels), torch.tensor(data.mean), torch.tensor(data.std))
    model = build_model(
        network,
        image_shape=(images.shape[1], images.shape[2], images.shape[3]),
        num_classes=data.num_classes,
        width=width,
        norm="none" if network == "fedavg_cnn" else "batch",
        seed=seed,
    )
    vectors = sparse_etf(model.num_features, data.num_classes, seed=0)
    head = FixedHead(NORM * vectors / vectors.norm(dim=1, keepdim=True))
    few = slice(BATCH * BATCHES)
    gradient = squared_gradient(model, head, images[few], labels[few].long())
    with torch.no_grad():
        features = model.train().features(images)
        logits = head(features).squeeze(1)  # (N, C)
    rows = features.squeeze(1)  # (N, D)
    return {
        "features": model.num_features,
        "feature_norm": float(rows.norm(dim=1).mean()),
        "feature_size": float(rows.square().mean().sqrt()),
        "spread": float((rows - rows.mean(0)).square().sum(1).mean().sqrt()),
        "logits": float(logits.var(dim=0, correction=0).mean().sqrt()),
        "gradient": gradient,
    }


def main() -> None:
    """Print the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", nargs="*", help="networks beside the first")
    args = parser.parse_args()
    cases = [one for place, one in enumerate(CASES) if not (place and args.only)]
    cases += [one for one in CASES[1:] if args.only and one[0] in args.only]
    found: list[dict[str, Any]] = []
    for network, width, name in cases:
        runs = [measure(network, width, name, seed) for seed in range(1, args.seeds + 1)]
        means = {key: fmean(run[key] for run in runs) for key in runs[0]}
        pace = LR / (1 - MOMENTUM) * means["gradient"]
        first = found[0] if found else {**means, "pace": pace}
        more = {
            "gradient_range": [pick(run["gradient"] for run in runs) for pick in (min, max)],
            "pace": pace,
            "norm_by_pace": NORM * math.sqrt(first["pace"] / pace),
            "norm_by_logits": NORM * first["logits"] / means["logits"],
        }
        found.append({"network": network, "width": width, "data": name, **means, **more})
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

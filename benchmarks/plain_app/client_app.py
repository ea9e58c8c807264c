"""The client of a plain Flower app: one epoch of SGD on the node's own share of the digits.

Written as Flower's documentation writes it; network, images and steps are those of fedlt's side of
``deployment.py``.
"""

from __future__ import annotations

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from network import build
from torch.nn import functional as F  # noqa: N812

app = ClientApp()


def load(context: Context) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images (n, 1, 8, 8) and labels (n,) in the node's file."""
    with np.load(str(context.node_config["data"])) as file:
        images = torch.from_numpy(file["train_images"]).permute(0, 3, 1, 2) / 255
        return images, torch.from_numpy(file["train_labels"]).long()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the model on the images in the node's file."""
    images, labels = load(context)
    model = build()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    total = 0.0
    for rows in torch.randperm(len(labels)).split(32):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images[rows]), labels[rows])
        loss.backward()
        optimizer.step()
        total += loss.item() * len(rows)
    metrics = {"train_loss": total / len(labels), "num-examples": len(labels)}
    content = {"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord(metrics)}
    return Message(content=RecordDict(content), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Score the model on the images in the node's file."""
    images, labels = load(context)
    model = build()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    with torch.no_grad():
        hits = (model(images).argmax(dim=1) == labels).sum().item()
    metrics = {"accuracy": hits / len(labels), "num-examples": len(labels)}
    return Message(content=RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)

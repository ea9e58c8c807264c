"""Confidence of a model trained beforehand in the true class of each training image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from fedlt.data.augment import normalize
from fedlt.methods.teacher import Teacher, load_teacher
from fedlt.models import build_model

if TYPE_CHECKING:
    from fedlt.data.preparation import Preparation

_AT_ONCE = 256  # images per forward pass


@torch.no_grad()
def confidences(preparation: Preparation, folder: str) -> NDArray[np.float32]:
    """Return a trained model's probability (N,) for the true class of each training image.

    In a federation every client would score its own images, with the model that all clients have.

    Args:
        preparation: The federation; its ``model:`` section gives the backbone.
        folder: Directory of a finished run, of any strategy with one linear head.

    Raises:
        FedltError: If there is no checkpoint, or the checkpoint has another model.
    """
    data, model = preparation.data, preparation.config.model
    before = torch.get_rng_state()
    backbone = build_model(
        **model.network(),
        image_shape=data.image_shape,
        num_classes=data.num_classes,
        seed=preparation.seed,
    ).backbone
    classifier = Teacher(backbone, data.num_classes)
    torch.set_rng_state(before)
    what = "the classifier, which is the file's `model:` with a linear head"
    load_teacher(classifier, folder, option="classifier_path", what=what)
    classifier.eval().to(preparation.device)
    mean, std = (torch.tensor(v, dtype=torch.float32) for v in (data.mean, data.std))
    found = []
    for start in range(0, len(data.train_images), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        images = torch.from_numpy(np.array(data.train_images[part]))
        logits = classifier(normalize(images, mean, std).to(preparation.device))
        labels = torch.from_numpy(np.array(data.train_labels[part]))[:, None]
        found.append(logits.softmax(dim=-1).cpu().gather(1, labels)[:, 0])
    return torch.cat(found).numpy()

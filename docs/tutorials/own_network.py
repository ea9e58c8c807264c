# %% [markdown]
# # Your own network
#
# A network is a function that returns a torch module without its last layer: images
# (B, channels, height, width) in, features (B, 1, D) out. The heads are fedlt's, since methods
# differ in them. The module says how many features (`num_features`) and streams (`num_streams`) it
# has; one stream is the usual case.

# %%
import torch
from torch import Tensor, nn

import fedlt


class Small(nn.Module):
    """Two convolutions with group normalisation."""

    num_features, num_streams = 32, 1

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, 16, 3, padding=1),
            nn.GroupNorm(4, 16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the features (B, 1, D)."""
        return self.body(images).flatten(1)[:, None]


def small(*, image_shape: tuple[int, int, int], **rest: object) -> nn.Module:
    """Return the network for images (channels, height, width)."""
    return Small(in_channels=image_shape[0])


# %% [markdown]
# fedlt calls the function with the shape of the images. The normalisation of the experiment is
# passed, too, and its width where it gives one; this network has its own. A class can stand there
# as well as a function.

# %%
run = fedlt.run(
    {
        "name": "own-network",
        "rounds": 5,
        "data": {"dataset": "digits", "imbalance_factor": 10},
        "partition": {"num_clients": 6},
        "model": {"name": small},
        "local": {"lr": 0.2, "epochs": 4, "momentum": 0.5},
        "engine": {"name": "serial"},
    },
    quiet=True,
)
print(run)

# %% [markdown]
# `run.model()` is the trained network with its head, as it was scored: images as the data set has
# them in, logits out. `run.model(client=3)` is the model of client 3.

# %%
from fedlt.data import load_dataset

digits = load_dataset("digits")
model = run.model()
with torch.no_grad():
    logits = model(torch.from_numpy(digits.test_images.copy()))
right = (logits.argmax(dim=1).numpy() == digits.test_labels).mean()
print(
    f"{right:.3f} of the test images, {run.result['final']['generic/accuracy']:.3f} in the result"
)

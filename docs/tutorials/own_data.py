# %% [markdown]
# # Your own data
#
# A data set is a function that returns images and labels. Here the images are drawn: eight classes
# of coloured squares, each a little different. In place of that, read your files in the function.

# %%
import numpy as np

import fedlt
from fedlt.data import dataset_from_arrays


def squares(seed: int = 0):
    draw = np.random.default_rng(seed)
    labels = np.arange(1200) % 8  # (N,) classes 0..7
    images = draw.integers(0, 120, (1200, 12, 12, 3), dtype=np.uint8)  # (N, H, W, C) noise
    for position, label in enumerate(labels):
        row, channel = divmod(int(label), 3)
        images[position, 4 * row : 4 * row + 4, 2:10, channel] += 110
    train, test = slice(0, 800), slice(800, 1200)
    return dataset_from_arrays("squares", images[train], labels[train], images[test], labels[test])


# %% [markdown]
# An experiment is a dictionary with the keys of a file ([all keys](../configuration.md)). The
# function may stand in it as it is; in a file the same is `dataset: "mine.py:squares"`.

# %%
experiment = {
    "name": "squares",
    "rounds": 8,
    "data": {"dataset": squares, "imbalance_factor": 10, "options": {"seed": 1}},
    "partition": {"num_clients": 5, "dirichlet_alpha": 0.5},
    "model": {"name": "cnn", "width": 8},
    "local": {"lr": 0.1, "epochs": 2, "momentum": 0.5},
    "engine": {"name": "serial"},
}
run = fedlt.run(experiment, quiet=True)
print(run)

# %% [markdown]
# fedlt draws the long tail from the training images, deals them to the clients, and tests on the
# test images as they are. The function's text is part of the run's fingerprint: after a change of
# the function the folder is refused in one line, and never shown as the result of the new data.

# %%
counts = run.classes().set_index("name")["images"]
print(counts)
for client, positions in run.partition.items():
    print(client, "holds", len(positions), "images")

# %% [markdown]
# The function must be complete: it may use imports, plain constants and other functions, but no
# array of the notebook. [A data set](../extending/data_set.md) has the form of the arrays, and data
# that are long-tailed already.

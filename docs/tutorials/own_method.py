# %% [markdown]
# # Your own method
#
# A federated method is a class derived from `Strategy`. This one adds to a client's loss the
# distance between the client's weights and the weights that the server sent: FedProx.

# %%
from dataclasses import dataclass

import torch
from torch import Tensor

import fedlt
from fedlt.client import Batch, Client
from fedlt.config.ranges import NotNegative
from fedlt.strategy import Strategy


@dataclass(frozen=True)
class Pulled(Strategy):
    """Pull every client towards the server's model."""

    mu: NotNegative = 0.1  # strength of the pull

    def objective(self, client: Client, batch: Batch) -> Tensor:
        """Return the loss plus mu / 2 times the squared distance to the broadcast model."""
        distances = [
            (tensor - client.broadcast[name]).square().sum()
            for name, tensor in client.model.named_parameters()
            if name in client.broadcast
        ]
        return super().objective(client, batch) + self.mu / 2 * torch.stack(distances).sum()


# %% [markdown]
# The fields of the class are its hyperparameters. An object of the class stands in the experiment
# where a name would stand:

# %%
experiment = {
    "name": "own-method",
    "rounds": 5,
    "data": {"dataset": "digits", "imbalance_factor": 10},
    "partition": {"num_clients": 6},
    "model": {"name": "cnn", "width": 8},
    "local": {"lr": 0.2, "epochs": 4, "momentum": 0.5},
    "engine": {"name": "serial"},
}
run = fedlt.run({**experiment, "strategy": Pulled(mu=0.2)}, quiet=True)
print(run)

# %% [markdown]
# A method that reduces to a known one has a test for free. With `mu=0` nothing is pulled, and every
# number must be FedAvg's:

# %%
plain = fedlt.run({**experiment, "name": "pulled-zero", "strategy": Pulled(mu=0.0)}, quiet=True)
fedavg = fedlt.run({**experiment, "name": "fedavg", "strategy": "fedavg"}, quiet=True)
print(plain.result["final"]["generic/nll"] == fedavg.result["final"]["generic/nll"])

# %% [markdown]
# fedlt keeps the class with the run: in a notebook or script the class, and what it uses, is
# written to `runs/code/Pulled_....py`, and workers, a resumed run and the command line load that
# file. So edit the class freely: a changed class is another method, with runs of its own. For a
# method to share, put the class into a file, give `"strategy": {"name": "mine.py:Pulled"}`, and
# let `fedlt check mine.py:Pulled` test its promises
# ([A method of your own](../extending/own_methods.md)).

# %%
print(run.config.strategy.name.rpartition("/")[2])

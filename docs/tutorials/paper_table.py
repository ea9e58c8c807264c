# %% [markdown]
# # A paper's table
#
# A claim needs several seeds and a test. `fedlt.compare` runs every method with every seed, on the
# same clients, images and starting weights, several runs at once.

# %%
import fedlt

table = fedlt.compare(
    "quickstart",
    "rounds=4",
    "local.epochs=1",
    "engine.name=serial",
    "local.lr=0.1",
    "name=paper",
    strategies=["fedavg", "fedrod"],
    seeds=[1, 2, 3, 4, 5],
    quiet=True,
)
print(table)

# %% [markdown]
# Finished runs are read: the call costs nothing the second time, and after an interrupt it goes on.
# Rounds are few here so that the page is quick to run; four rounds say nothing about a method.
#
# The verdicts, tested pair by pair over the seeds, and corrected for the number of tests:

# %%
verdicts = table.verdicts()
print(verdicts[["method", "view", "verdict", "difference", "half", "p_holm"]].round(3))

# %% [markdown]
# One row per run, unrounded, for statistics of your own:

# %%
frame = table.frame()
columns = ["generic/accuracy", "generic/few", "personal/accuracy"]
print(frame.groupby("method", sort=False)[columns].agg(["mean", "std"]).round(3))

# %% [markdown]
# For the paper, LaTeX with means and 95 % intervals; for the supplement, the report:

# %%
print(table.latex())
print(table.report("paper.html"))

# %% [markdown]
# A method of your own is compared as an object, `strategies=["fedavg", Pulled(mu=0.1)]`
# ([Your own method](own_method.md)). A comparison with other data, hyperparameters or plugins in
# each row is a file with a section `compare`: [Comparisons](../compare.md).

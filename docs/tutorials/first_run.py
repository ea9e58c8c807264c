# %% [markdown]
# # First run in Python
#
# One call trains an experiment that comes with fedlt, and returns the finished run. `quickstart` is
# FedLoGe on scikit-learn's digits: 10 clients, the largest class 20 times the smallest.

# %%
import fedlt

run = fedlt.run("quickstart", "rounds=10", "engine.name=serial")
print(run)

# %% [markdown]
# The words after the name replace values of the experiment, as on the command line: `rounds=10` for
# a short run, `engine.name=serial` for one process. The run lies in `runs/quickstart/1`. The same
# call opens that folder and trains nothing; with other values it says that the folder holds another
# run, so give each experiment of yours a name: `name=plain`.

# %%
again = fedlt.run("quickstart", "rounds=10", "engine.name=serial")
print(again.path == run.path)

# %% [markdown]
# Results are pandas frames. One row per scored round:

# %%
rounds = run.rounds()
print(rounds[["round", "generic/accuracy", "generic/few", "personal/accuracy"]])

# %% [markdown]
# One row per class. The rare classes are at the end, and few of their images are recognised:

# %%
print(run.classes()[["name", "images", "group", "generic/recall", "personal/recall"]].round(2))

# %% [markdown]
# One row per client. `gain` is what the client's own model wins over the generic model on the
# client's own class mix:

# %%
print(run.clients()[["client", "images", "classes", "accuracy", "gain"]].round(3))

# %% [markdown]
# [The reference](../python.md) has every function and column. Go on with
# [your own data](own_data.md), or [read results](reading_results.md) of longer runs.

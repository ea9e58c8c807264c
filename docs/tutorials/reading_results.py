# %% [markdown]
# # Reading results
#
# `fedlt.load` opens the folder of a finished run, of this machine or copied from another. Reading a
# run executes none of its code and opens no data set. Here a short run is made first.

# %%
import fedlt

changes = ["name=reading", "rounds=12", "evaluate.every=2", "engine.name=serial"]
fedlt.run("quickstart", *changes, quiet=True)
run = fedlt.load("runs/reading/1")
print(run)

# %% [markdown]
# `run.result` is `result.json`. Its metrics stand at four moments: `final` (the last round),
# `last_k` (mean of the last rounds), `selected` and `best_on_test`
# ([Metrics](../metrics.md) defines every number). Shares are fractions.

# %%
final = run.result["final"]
print({name: final[name] for name in ("generic/accuracy", "generic/few", "personal/accuracy")})
print(run.config.local.lr, run.config.partition.dirichlet_alpha)

# %% [markdown]
# Curves over the rounds, the groups of classes side by side:

# %%
from matplotlib.figure import Figure

rounds = run.rounds()
figure = Figure(figsize=(6, 3.5), layout="constrained")
axes = figure.add_subplot()
for group in ("many", "medium", "few"):
    axes.plot(rounds["round"], 100 * rounds[f"generic/{group}"], label=group)
axes.set_xlabel("round")
axes.set_ylabel("accuracy of the generic model, %")
axes.legend()
figure.savefig("groups.png")

# %% [markdown]
# Questions about classes and clients are lines of pandas. How much of the rare classes does each
# head recognise? Who is worse off with a model of their own?

# %%
classes = run.classes()
heads = [column for column in classes.columns if column.endswith("recall")]
print(classes.groupby("group", observed=True)[heads].mean().round(2))

clients = run.clients()
print(clients[clients["gain"] < 0][["client", "images", "accuracy", "generic", "gain"]].round(3))
print(clients.groupby("owns_few")["gain"].mean())

# %% [markdown]
# `majority_guess` is the accuracy of always guessing the client's largest class: a personal model
# that does no better has learnt nothing.

# %%
print((clients["accuracy"] <= clients["majority_guess"]).sum(), "of", len(clients), "clients")

# %% [markdown]
# A report with all pictures is one page that opens from disk:

# %%
print(run.report("reading.html"))

"""Copy measured rows into the pages of the methods: ``python .ci/figures.py``.

The tables of docs/tables.md are the source. A page gets every row that is about its
method, once, under "Measured figures"; a test says when a page is out of date.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
METHODS = ROOT / "docs/methods"
HEADING = "## Measured figures\n"
NOTE = (
    "Mean ± 95 % confidence interval over seeds, in %; from [Tables](../{up}tables.md).\n"
    "[Results](../{up}results.md) says how they were made. Rows of\n"
    "Fashion-MNIST-LT and CIFAR-10-LT are of an earlier version:\n"
    "[From an older fedlt](../{up}older.md)."
)
SETTINGS = {  # where a table is from, in the line above it -> what its rows are called
    "experiments/tables/fashion": "Fashion-MNIST-LT, 5 seeds",
    "experiments/tables/cifar10": "CIFAR-10-LT, 5 seeds",
    "experiments/tables/digits": "digits, 3 seeds",
    "experiments/tables/plugins_fashion": "Fashion-MNIST-LT, 3 seeds",
    "experiments/tables/plugins_digits": "digits, 3 seeds",
    "runs/fashion": "Fashion-MNIST-LT, 5 seeds",
    "runs/digits": "digits, 5 seeds",
}
SOURCE = "docs/tables.md"
# page -> labels of rows; "FedAvg" stands on every page, to compare with.
ROWS: dict[str, tuple[str, ...]] = {
    "generic/fedavg": ("FedAvg",),
    "generic/fedprox": ("FedProx",),
    "generic/scaffold": ("SCAFFOLD",),
    "generic/fednova": ("FedNova",),
    "generic/feddyn": ("FedDyn",),
    "generic/moon": ("MOON",),
    "generic/fedsam": ("FedSAM",),
    "generic/fedswa": ("FedSWA",),
    "generic/fedmoswa": ("FedMoSWA",),
    "generic/flower": ("FedAvgM", "FedAdam", "FedYogi"),
    "personal/local_only": ("local only",),
    "personal/fedavg_ft": ("FedAvg fine-tuned",),
    "personal/fedbn": ("FedBN",),
    "personal/fedper": ("FedPer",),
    "personal/lg_fedavg": ("LG-FedAvg",),
    "personal/fedrep": ("FedRep",),
    "personal/fedbabu": ("FedBABU",),
    "personal/ditto": ("Ditto",),
    "personal/pfedme": ("pFedMe",),
    "personal/apfl": ("APFL",),
    "personal/fedala": ("FedALA",),
    "personal/fedproto": ("FedProto",),
    "longtail/fedloge": ("FedLoGe", "FedLoGe + balanced softmax"),
    "longtail/fedloge_experts": ("FedLoGe + MDCS (aux_experts)", "FedLoGe + MDCS (streams)"),
    "longtail/fedrod": ("FedROD",),
    "longtail/fedetf": ("FedETF",),
    "longtail/fednh": ("FedNH",),
    "longtail/ccvr": ("CCVR",),
    "longtail/creff": ("CReFF",),
    "longtail/fed_grab": ("Fed-GraB",),
    "longtail/balancefl": ("BalanceFL",),
    "longtail/fedntd": ("FedNTD",),
    "longtail/fedlmd": ("FedLMD",),
    "plugins/balanced_softmax": (
        "FedAvg + balanced softmax",
        "FedAvg + balanced softmax (global prior)",
        "balanced softmax",
        "balanced softmax (global prior)",
    ),
    "plugins/logit_adjustment": ("logit adjustment",),
    "plugins/fedlc": ("FedLC",),
    "plugins/fedir": ("FedIR",),
    "plugins/focal": ("Fed-Focal",),
    "plugins/class_balanced": ("class-balanced",),
    "plugins/ldam_drw": ("LDAM-DRW",),
    "plugins/fedyoyo": ("FedYoYo",),
    "plugins/mdcs": ("FedAvg + MDCS", "FedROD + MDCS", "FedLoGe + MDCS (aux_experts)"),
    "plugins/discl": (
        "FedAvg + DisCL",
        "FedAvg + over-sampling",
        "FedROD + DisCL",
        "FedROD + over-sampling",
        "FedLoGe + DisCL",
        "FedLoGe + over-sampling",
    ),
    "after_training/gla_fr": ("before", "`gla_fr`, `tau_norm --tau 1`"),
    "after_training/tau_norm": ("before", "`gla_fr`, `tau_norm --tau 1`"),
    "after_training/logit_adjustment": ("before", "`logit_adjustment --tau 1`"),
    "after_training/lws": ("before", "`lws --data federated`"),
    "after_training/crt": ("before", "`crt --data federated`"),
    "after_training/ccvr": ("before", "`ccvr --data federated`"),
    "centralised": ("centralised", "centralised + balanced softmax"),
}

Row = tuple[str, tuple[str, ...], tuple[str, ...]]  # setting, names of the columns, cells


def cells(line: str) -> tuple[str, ...]:
    """Return the cells of a table's line."""
    return tuple(cell.strip() for cell in line.strip().strip("|").split("|"))


def all_rows() -> list[Row]:
    """Return every row of the source."""
    return rows_of((ROOT / SOURCE).read_text(encoding="utf-8"))


def rows_of(text: str) -> list[Row]:
    """Return every row of a text's tables of methods, without its seconds."""
    found: list[Row] = []
    setting, columns = "", ()
    for line in text.split("\n"):
        setting = next((name for place, name in SETTINGS.items() if place in line), setting)
        if line.startswith("| method | generic |"):
            columns = cells(line)
        elif not line.startswith("|"):
            columns = ()
        elif columns and not line.startswith("| ---"):
            keep = [i for i, name in enumerate(columns) if name != "s / run"]
            values = cells(line)
            found.append((setting, tuple(columns[i] for i in keep), tuple(values[i] for i in keep)))
    return found


def section_of(page: str, rows: list[Row]) -> str:
    """Return a page's part "Measured figures"."""
    labels = ROWS[page]
    wanted = ("FedAvg", *labels) if "before" not in labels else labels
    chosen = [row for row in dict.fromkeys(rows) if row[2][0] in wanted]
    with_method = {row[0] for row in chosen if row[2][0] in labels and row[2][0] != "before"}
    chosen = [row for row in chosen if row[0] in with_method]
    missing = set(labels) - {row[2][0] for row in chosen}
    if missing:
        raise ValueError(f"{page}: no table has a row {sorted(missing)}")
    columns = chosen[0][1]
    lines = ["| setting | " + " | ".join(columns) + " |"]
    lines.append("| --- " * (len(columns) + 1) + "|")
    lines += ["| " + " | ".join((setting, *values)) + " |" for setting, _, values in chosen]
    note = NOTE.format(up="../" * page.count("/"))
    return f"\n{HEADING}\n{note}\n\n" + "\n".join(lines) + "\n"


def updated(page: str, rows: list[Row]) -> str:
    """Return a page's text with the rows of today."""
    text = (METHODS / f"{page}.md").read_text(encoding="utf-8")
    return text.split("\n" + HEADING)[0] + section_of(page, rows)


def main() -> None:
    """Write all pages."""
    rows = all_rows()
    for page in ROWS:
        (METHODS / f"{page}.md").write_text(updated(page, rows), encoding="utf-8")


if __name__ == "__main__":
    main()

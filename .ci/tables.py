"""Fill the measured tables of docs/ from experiments/results: ``python .ci/tables.py``.

A page says between marks what it gets; the marks stay, the lines between them are replaced:

    <!-- from leaderboard FIGURE HEADING=FOLDER ... -->   leaderboard.md of ``fedlt leaderboard``
    <!-- from table FOLDER [MOMENT] -->          the table of one comparison, last_k by default
    <!-- from searches FOLDER -->                the trials behind its rows
    <!-- from heads FOLDER [VIEW] -->            generic and personal by every head, last_k
    <!-- end -->

FOLDER lies in experiments/results; a folder that is not there yet is left out of a leaderboard.
FIGURE is the path in docs/ that its figure goes to. Then the rows of docs/tables.md go to the pages
of the methods, under "Measured figures". Tests say when a page is out of date.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fedlt.cli import main as fedlt
from fedlt.comparing.beside import TUNED, read_beside
from fedlt.comparing.board_tables import trials_cell
from fedlt.comparing.cells import accuracy_cell
from fedlt.comparing.leaderboard import read_leaderboard
from fedlt.comparing.search import TRIED
from fedlt.comparing.sheet import Sheet, to_markdown
from fedlt.comparing.table import figures_sheet

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
RESULTS = ROOT / "experiments/results"
PAGES = ("leaderboard.md", "tables.md", "results.md")  # pages with marks, in docs/
PART = re.compile(r"^<!-- from (\w+) (.+?) -->\n.*?^<!-- end -->$", re.MULTILINE | re.DOTALL)
HEADS = {  # view -> column of its table by head -> metric
    "generic": {name: name for name in ("accuracy", "many", "medium", "few")},
    "personal": {"accuracy": "accuracy", "within held classes": "accuracy_held"},
}
LEFT_OUT = ("KiB down", "KiB up", "MiB", "prior")  # columns that pages do not show

HEADING = "## Measured figures\n"
NOTE = (
    "Mean ± 95 % confidence interval over seeds, in %; from [Tables](../{up}tables.md).\n"
    "[Results](../{up}results.md) says how they were made."
)
# page of a method -> labels of rows; "FedAvg" stands on every page, to compare with.
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
    ),
    "plugins/logit_adjustment": ("FedAvg + logit adjustment",),
    "plugins/fedlc": ("FedLC",),
    "plugins/fedir": ("FedIR",),
    "plugins/focal": ("Fed-Focal",),
    "plugins/class_balanced": ("class-balanced",),
    "plugins/ldam_drw": ("LDAM-DRW",),
    "plugins/fedyoyo": ("FedYoYo",),
    "plugins/equalisation": ("equalisation",),
    "plugins/mixup": ("mixup",),
    "plugins/class_balanced_sampling": ("class-balanced sampling", "square-root sampling"),
    "plugins/score_facility_location": ("SCoRe (graph cut)", "SCoRe (facility location)"),
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


def filled(text: str, docs: Path | None = None) -> str:
    """Return a page's text with the parts of today; ``docs``: a folder that gets the figures."""

    def part(match: re.Match[str]) -> str:
        kind, words = match[1], match[2]
        return f"<!-- from {kind} {words} -->\n\n{made(kind, words.split(), docs)}\n<!-- end -->"

    return PART.sub(part, text)


def made(kind: str, words: list[str], docs: Path | None) -> str:
    """Return the text of a part; ``docs``: as of :func:`filled`.

    Raises:
        ValueError: If a mark has another kind, or none of its folders is there.
    """
    if kind == "leaderboard":
        return _board(words, docs)
    if kind not in ("table", "searches", "heads"):
        raise ValueError(f"<!-- from {kind} -->: expected leaderboard, table, searches or heads")
    folder, moment = [*words, "last_k"][:2]
    if kind == "heads":
        return "\n".join(_by_head(RESULTS / folder, view) for view in words[1:] or HEADS)
    if kind == "searches":
        known = read_beside(RESULTS / folder, TUNED)
        rows = [[label, trials_cell(entry)] for label, entry in known.items()]
        return to_markdown(Sheet("", ["method", TRIED], rows))
    (entry,) = read_leaderboard([str(RESULTS / folder)])
    sheet = figures_sheet(entry.results, moment)
    return to_markdown(sheet.part("method", {n: n for n in sheet.columns[1:] if n not in LEFT_OUT}))


def _board(words: list[str], docs: Path | None) -> str:
    """Return the text of ``fedlt leaderboard``, which names its figure by its place in docs/."""
    figure, *given = words
    known = {name: RESULTS / folder for name, _, folder in (word.partition("=") for word in given)}
    folders = [f"{name}={folder}" for name, folder in known.items() if folder.exists()]
    if not folders:
        raise ValueError(f"{RESULTS} has none of the results that a mark names")
    with tempfile.TemporaryDirectory() as place, contextlib.redirect_stdout(io.StringIO()):
        if fedlt(["--quiet", "leaderboard", *folders, "--output", place]) != 0:
            raise SystemExit(1)
        if docs is not None:
            shutil.copyfile(Path(place) / "ranks.svg", docs / figure)
        board = (Path(place) / "leaderboard.md").read_text(encoding="utf-8")
    return board.replace("(ranks.svg)", f"({figure})")


def _by_head(folder: Path, view: str) -> str:
    """Return the table of one view, a line for every head of every row."""
    (entry,) = read_leaderboard([str(folder)])
    rows: list[list[object]] = []
    for label, runs in entry.results.items():
        found = (re.fullmatch(rf"{view}/(\w+)/accuracy", metric) for metric in runs[0]["last_k"])
        heads = {f"{label}, head `{match[1]}`": f"{view}/{match[1]}" for match in found if match}
        for name, head in ({label: view} | heads).items():
            metrics = (f"{head}/{metric}" for metric in HEADS[view].values())
            rows.append([name, *(accuracy_cell(runs, "last_k", metric) for metric in metrics)])
    return to_markdown(Sheet(view, [view, *HEADS[view]], rows))


def cells(line: str) -> tuple[str, ...]:
    """Return the cells of a table's line."""
    return tuple(cell.strip() for cell in line.strip().strip("|").split("|"))


def rows_of(text: str) -> Iterator[Row]:
    """Yield every row of the tables of methods in a page, without its seconds.

    The setting is the heading above a table, up to a colon, with the seeds that a line of the
    section begins with, as ``Seeds 1 to 5.``
    """
    setting, columns = "", ()
    for line in text.split("\n"):
        if line.startswith("## "):
            setting = line.removeprefix("## ").partition(":")[0]
        elif found := re.match(r"Seeds 1 to (\d)", line):
            setting = f"{setting.partition(',')[0]}, {found[1]} seeds"
        if line.startswith("| method | generic |"):
            columns = cells(line)
        elif not line.startswith("|"):
            columns = ()
        elif columns and not line.startswith("| ---"):
            keep = [i for i, name in enumerate(columns) if name != "s / run"]
            own = cells(line)
            yield setting, tuple(columns[i] for i in keep), tuple(own[i] for i in keep)


def section_of(page: str, rows: list[Row]) -> str:
    """Return the part "Measured figures" of a method's page."""
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
    lines += ["| " + " | ".join((setting, *own)) + " |" for setting, _, own in chosen]
    note = NOTE.format(up="../" * page.count("/"))
    return f"\n{HEADING}\n{note}\n\n" + "\n".join(lines) + "\n"


def updated(docs: Path | None = None) -> dict[Path, str]:
    """Return the text of today of every page; ``docs``: as of :func:`filled`."""
    found = {DOCS / name: (DOCS / name).read_text(encoding="utf-8") for name in PAGES}
    found = {path: filled(text, docs) for path, text in found.items()}
    rows = list(rows_of(found[DOCS / "tables.md"]))
    for page in ROWS:
        path = DOCS / "methods" / f"{page}.md"
        text = path.read_text(encoding="utf-8")
        found[path] = text.split("\n" + HEADING)[0] + section_of(page, rows)
    return found


def main() -> None:
    """Write all pages and figures."""
    for path, text in updated(DOCS).items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

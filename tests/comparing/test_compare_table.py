"""The table of a comparison: intervals, marks, verdicts, and what may not stand side by side."""

from __future__ import annotations

import csv
import inspect
import io

import numpy as np
import pytest
from rich.console import Console

from clients import CLIENTS
from fedlt.comparing.cells import price_cells
from fedlt.comparing.conditions import check_comparable, conditions
from fedlt.comparing.exports import csv_text, latex, markdown, verdicts_csv
from fedlt.comparing.prior_words import prior_words, reads_prior
from fedlt.comparing.table import footnotes, terminal_tables
from fedlt.comparing.verdicts import describe, pick_reference, verdicts
from fedlt.config import Config
from fedlt.errors import FedltError
from strategies import STRATEGIES

METRICS = ("many", "medium", "few")


def result(seed, generic, personal, **more):
    figures = {f"generic/{name}": generic for name in ("accuracy", *METRICS)}
    figures |= {f"personal/{n}": personal for n in ("accuracy", "p10", "worst", "gain")}
    figures["personal/majority_guess"] = 0.4
    base = {
        "seed": seed,
        "shots": {"few": [1]},
        "split": "final",
        "generic_model": "shared",
        "partition_hash": f"deal {seed}",
        "prior": {"use": "local_masked", "source": "own"},
        "bytes_down": 2048,
        "bytes_up": 1024,
        "conditions": {"evaluate.local_test": "exact"},
        "reference": None,
    }
    return {**base, "seconds": 10.0 * seed, "last_k": figures, "best_on_test": figures, **more}


MIX = {"use": "mix", "gamma": 0.1, "source": "oracle"}
RESULTS = {
    "A": [
        result(1, 0.5, 0.7, peak_memory=300 * 2**20),
        result(2, 0.6, 0.9, peak_memory=2**30),
    ],
    "B": [result(s, 0.4, 0.8, generic_model="average", prior=MIX) for s in (1, 2)],
    "C": [result(s, None, 0.8, generic_model="none") for s in (1, 2)],
}
TABLE = {"": RESULTS}


def shown(*parts):
    console = Console(width=80, record=True, file=io.StringIO())
    for part in parts:
        console.print(part)
    return console.export_text()


def test_cells_are_mean_and_t_interval_over_seeds():
    """50, 60: mean 55, s = 7.071, t(1, 0.975) = 12.706: 12.706 * 7.071 / sqrt(2) = 63.5.

    70, 90: twice that, 127.1, which is wider than the scale.
    """
    lines = markdown("tiny", "last_k", TABLE, []).splitlines()
    assert lines[0].startswith("tiny, last_k, split final, seeds 1, 2: mean ± 95 %")
    assert lines[4] == (
        "| A | 55.0 ± 63.5 | 55.0 ± 63.5 | 55.0 ± 63.5 | 55.0 ± 63.5 | 80.0 ± >100 "
        "| 80.0 ± >100 | 80.0 ± >100 | +80.0 ± >100 | local_masked | 2 | 1 | 300 | 10 |"
    )
    assert lines[5].startswith("| B | ~40.0 ± 0.0 |")
    assert lines[5].endswith("| mix 0.1 (oracle) | 2 | 1 | - | 10 |")
    assert lines[6].startswith("| C | - | - | - | - | 80.0 ± 0.0 |")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0"), (3.26, "3.3"), (9.94, "9.9"), (9.96, "10"), (123.4, "123")],
)
def test_short_runs_have_a_decimal(seconds, shown):
    assert price_cells([result(1, 0.5, 0.5, seconds=seconds)])["s / run"].text == shown


@pytest.mark.parametrize(
    ("strategy", "client", "shown"),
    [
        ("fedavg", "cross_entropy", "-"),
        ("fedavg", "mixup + focal", "-"),
        ("fedavg", "mixup + balanced_softmax", "mix 0.1 (oracle)"),
        ("fedrod", "cross_entropy", "mix 0.1 (oracle)"),
        ("mine.py:Mine", "cross_entropy", "mix 0.1 (oracle)"),  # of a user: not known
    ],
)
def test_a_row_without_a_prior_shows_none(strategy, client, shown):
    assert prior_words({"strategy": strategy, "client": client, "prior": MIX}) == shown


def test_methods_that_read_the_prior_have_its_name_in_their_source():
    """Of DisCL, the shares of the prior are read in fedlt/generators/tail.py."""
    for table, read in ((STRATEGIES, {"fedrod"}), (CLIENTS, {"discl"})):
        named = {
            n for n in table if '"log_prior"' in inspect.getsource(inspect.getmodule(table[n]))
        }
        for name in table:
            pair = (name, "cross_entropy") if table is STRATEGIES else ("fedavg", name)
            assert reads_prior(*pair) == (name in named | read), name


def test_the_terminal_fits_eighty_columns():
    text = shown(terminal_tables(RESULTS, "last_k"), terminal_tables(RESULTS, "all"))
    assert "…" not in text
    assert "~40.0±0.0" in text
    assert "80.0±>100" in text
    assert "mix 0.1 (oracle)" in text
    assert "best_on_test" in text


def test_the_notes_name_marks_guess_and_the_search_on_the_test_set():
    lines = footnotes(TABLE, "last_k")
    assert lines[0].startswith("~ the mean of personal parts")
    assert lines[1] == "always guessing a client's largest class: 40.0"
    assert "never for a verdict" in footnotes(TABLE, "best_on_test")[-1]
    assert "never for a verdict" in footnotes(TABLE, "all")[-1]


def test_the_csv_has_every_run_unrounded():
    rows = list(csv.DictReader(io.StringIO(csv_text("last_k", TABLE))))
    assert len(rows) == 6
    assert float(rows[1]["generic/accuracy"]) == 0.6
    assert rows[4]["generic/accuracy"] == ""
    assert (rows[2]["prior.source"], rows[2]["bytes_up"]) == ("oracle", "1024")


def test_latex_is_a_booktabs_table_without_raw_marks():
    text = latex("tiny", "last_k", {"": {"A_b 100%": RESULTS["B"]}}, ["p < 0.001 & more"])
    assert r"A\_b 100\% & ${\sim}40.0 \pm 0.0$ &" in text
    assert r"$80.0 \pm >100$" in latex("tiny", "last_k", {"": {"A": RESULTS["A"]}}, [])
    for word in (r"\toprule", r"\midrule", r"\bottomrule", r"p $<$ 0.001 \& more\par"):
        assert word in text
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    assert {line.count(" & ") for line in body.splitlines() if "&" in line} == {13}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"shots": {"few": [2]}}, "shots"),
        ({"split": "tune"}, "split"),
        ({"seed": 3}, "seeds"),
        ({"partition_hash": "x"}, "partition"),
        ({"conditions": {"evaluate.local_test": "reference"}}, "evaluate.local_test"),
    ],
)
def test_what_differs_in_more_than_the_method_is_refused(change, word):
    other = [RESULTS["A"][0], {**RESULTS["A"][1], **change}]
    with pytest.raises(FedltError, match=f"'B' and 'A' differ in .*{word}"):
        check_comparable({"A": RESULTS["A"], "B": other})
    check_comparable(RESULTS)


def test_side_by_side_needs_no_common_seeds_but_the_same_data_and_groups():
    """Seeds and partitions may differ; for a seed that both have, the class lists may not."""
    other = [{**RESULTS["A"][0], "partition_hash": "x"}, {**RESULTS["A"][1], "seed": 7}]
    check_comparable({"A": RESULTS["A"], "B": other}, paired=False)
    check_comparable({"A": RESULTS["A"], "B": [result(7, 1, 1, shots={"few": [9]})]}, paired=False)
    for change, word in [
        ({"shots": {"few": [2]}}, "shots"),
        ({"conditions": {"evaluate.local_test": "sampled"}}, "evaluate.local_test"),
    ]:
        with pytest.raises(FedltError, match=f"'B' and 'A' differ in {word}"):
            check_comparable({"A": RESULTS["A"], "B": [{**other[0], **change}]}, paired=False)
    named = [{**run, "shots": {"scheme": "rank", "few": [1]}} for run in RESULTS["A"]]
    check_comparable({"A": RESULTS["A"], "B": named})  # the same lists by another rule


def test_personal_models_trained_on_before_scoring_stand_in_a_table_of_their_own():
    def known(**refresh):
        given = {"name": "a", "rounds": 1, "personal": {"refresh": refresh}}
        return conditions(Config.model_validate(given))

    assert known(epochs=1) != known(epochs=0)
    assert known(epochs=0, scope="all") == known(epochs=0)  # nothing is trained, whatever the scope


def test_gains_over_an_average_of_personal_parts_are_marked():
    """Its generic model does not exist, so neither does what is gained over it."""
    cells = markdown("tiny", "last_k", TABLE, []).splitlines()
    assert "| ~+80.0 ± 0.0 |" in cells[5]
    assert "| +80.0 ± 0.0 |" in cells[6]


def test_views_masks_and_clients_never_sampled_are_said_below_the_table():
    def note(**known):
        rows = {"A": [{**run, "conditions": known} for run in RESULTS["A"]]}
        return " ".join(footnotes({"": rows}, "last_k"))

    warning = "masks predictions with test labels"
    assert warning in note(**{"evaluate.local_test": "reference"})
    assert warning in note(**{"evaluate.local_test": "exact", "mask": "test"})
    assert warning not in note(**{"evaluate.local_test": "exact", "mask": "held"})
    assert "restricted to classes the client trains on" in note(mask="held")
    assert "drawn in proportion" in note(**{"evaluate.local_test": "sampled"})
    seen = {"personal/never": 3, "train/coverage": 0.7, "train/coverage_few": None}
    rows = {
        label: [run | {"last_k": run["last_k"] | seen} for run in RESULTS["A"]] for label in "AB"
    }
    said = footnotes({"": rows}, "last_k")
    assert (
        "3 clients never sampled, scored with the generic model, tuned where everybody's is; "
        "seen: 70.0 % of clients, " in said[1]
    )
    assert len(said) == 2
    assert footnotes({"": {**rows, "C": RESULTS["A"]}}, "last_k")[1].startswith("A, B: 3 clients")


def five(offset, spread=0.01, **more):
    """Return results of five seeds: an accuracy of 0.6 to 0.8, and an offset."""
    base, noise = np.linspace(0.6, 0.8, 5), spread * np.array([1, -1, 0.5, -0.5, 0])
    figures = base + offset + noise
    return [result(s, g, g, **more) for s, g in enumerate(figures.tolist(), start=1)]


FIVE = {
    "A": five(0.0, 0.0),
    "B": five(0.1),
    "C": five(0.001),
    "D": five(-0.1),
    "all data": five(0.2, reference="pooled data"),
}


def test_verdicts_are_paired_over_seeds_and_corrected_over_the_whole_table():
    """Three rows and two views: six tests; the base of 0.6 to 0.8 would hide them unpaired."""
    found = verdicts({"": FIVE}, "last_k", "A")
    words = {(one.row, one.view): one.word for one in found}
    for view in ("generic", "personal"):
        assert [words[row, view] for row in "BCD"] == ["better", "not different", "worse"]
    assert len(words) == 6  # pooled data is a reference point, not a row to be judged
    lines = describe(found)
    assert lines[0].startswith("Against A, paired over 5 seeds: t test, Holm's correction over 6 ")
    assert any(line.startswith("generic: B better, +10.0 [+9.0, +11.0], p ") for line in lines)
    rows = list(csv.DictReader(io.StringIO(verdicts_csv(found))))
    assert [row["verdict"] for row in rows][:3] == ["better", "not different", "worse"]


def test_another_reference_row():
    assert pick_reference([*FIVE], "D") == "D"
    assert pick_reference([*FIVE]) == "A"
    assert pick_reference([*FIVE], points=["A", "B"]) == "C"
    assert pick_reference([*FIVE], "A", points=["A"]) == "A"
    assert pick_reference(["A"], points=["A"]) == "A"
    with pytest.raises(FedltError, match="against: no row 'E'"):
        pick_reference([*FIVE], "E")
    words = {o.row: o.word for o in verdicts({"": FIVE}, "last_k", "D") if o.view == "generic"}
    assert words == {"A": "better", "B": "better", "C": "better"}


def test_settings_of_a_grid_are_corrected_together():
    alone = verdicts({"": FIVE}, "last_k", "A")
    grid = verdicts({"x=1": FIVE, "x=2": FIVE}, "last_k", "A")
    strongest = min(one.p for one in alone)
    assert min(one.p for one in grid) == pytest.approx(2 * strongest)


def test_few_seeds_are_undecided_and_the_number_needed_is_said():
    three = {label: runs[:3] for label, runs in FIVE.items()}
    found = verdicts({"": three}, "last_k", "A")
    assert {one.word for one in found} == {"undecided"}
    lines = describe(found)
    assert "3 seeds: undecided, a verdict needs 5 seeds, 2 more" in lines[0]
    assert " p " not in lines[1]

"""Result tables: what is shown, in which order, and what is bold."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fedlt.comparing.sheet import percent
from fedlt.comparing.terminal import result_table, seeds_table

FINAL = {
    "round": 3,
    "generic/accuracy": 0.61234,
    "generic/many": 0.9,
    "generic/medium": None,
    "generic/few": 0.05,
    "generic/few_ece": 0.77,
    "generic/aux/accuracy": 0.7,
    "generic/aux/many": 0.71,
    "personal/accuracy": 0.8,
    "personal/p10": 0.5,
    "personal/worst": 0.25,
    "personal/majority_guess": 0.444,
    "personal/gain": -0.0123,
    "personal/generic": 0.8123,
    "personal/accuracy_held": 0.85,
    "personal/v2/accuracy": 0.99,
}
RESULT = {"strategy": "fedloge", "client": "mdcs", "seed": 2, "rounds": 3, "final": FINAL}


def render(table, *, color=False) -> str:
    out = io.StringIO()
    system = "standard" if color else None
    Console(file=out, width=80, force_terminal=color, color_system=system).print(table)
    return out.getvalue()


def row(text: str, start: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.strip().startswith(start))
    name = next(n for n in ("primary head", "generic model", *line.split()) if n in line)
    return [name, *line.replace(name, "").split()]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (float("nan"), "-"),
        (0.6125, "61.3"),
        (1, "100.0"),
        (0.0, "0.0"),
        (-0.01, "-1.0"),
    ],
)
def test_percent(value, text):
    assert percent(value) == text


def test_signed_percent():
    assert percent(0.05, signed=True) == "+5.0"
    assert percent(-0.05, signed=True) == "-5.0"


def test_one_run():
    text = render(result_table(RESULT))
    generic, personal = text.split("personal", 1)
    assert text.startswith("fedloge + mdcs, seed 2, round 3 (accuracies in %)")
    assert row(generic, "primary head")[1:] == ["61.2", "90.0", "-", "5.0"]
    assert row(generic, "aux")[1:] == ["70.0", "71.0", "-", "-"]
    assert row(personal, "primary head")[1:] == ["80.0", "50.0", "25.0", "-1.2", "44.4", "85.0"]
    assert row(personal, "v2")[1:] == ["99.0", "-", "-", "-", "-", "-"]
    assert row(personal, "generic model")[1] == "81.2"
    assert "few_ece" not in text


def test_only_primary_heads_are_bold():
    bold = [
        line for line in render(result_table(RESULT), color=True).splitlines() if "\x1b[1m" in line
    ]
    body = [line for line in bold if "head" in line or "aux" in line or "v2" in line]
    assert len(body) == 2
    assert all("primary head" in line for line in body)


def test_primary_heads_come_first():
    text = render(result_table(RESULT))
    assert text.index("primary head") < text.index("aux")


def test_streams_are_named_as_such_and_not_bold():
    final = {"generic/accuracy": 0.6, "generic/few_expert/accuracy": 0.5}
    final |= {"generic/few_expert/few": 0.75, "generic/sse_c/accuracy": 0.4}
    result = {**RESULT, "final": final, "streams": ["few_expert"]}
    for table in (result_table(result), seeds_table([result])):
        text = render(table, color=True)
        lines = [line for line in text.splitlines() if "few_expert" in line or "sse_c" in line]
        assert [line.split() for line in lines] == [
            ["stream", "few_expert", "50.0", "-", "-", "75.0"],
            ["sse_c", "40.0", "-", "-", "-"],
        ]


def test_missing_moment_is_all_dashes():
    assert row(render(result_table(RESULT, "selected")), "primary head")[1:] == ["-"] * 4


def test_other_moment_is_named():
    result = {**RESULT, "last_k": {"k": 1, "generic/accuracy": 0.5}}
    assert "last_k of 3 rounds" in render(result_table(result, "last_k"))


def test_several_seeds():
    # 0.6 and 0.7: mean 0.65, deviation with n - 1: sqrt(2 * 0.05^2 / 1) = 0.0707; a table of t has
    # 12.706 for one degree of freedom: 12.706 * 0.0707 / sqrt(2) = 0.635
    results = [
        {**RESULT, "seed": seed, "final": {**FINAL, "generic/accuracy": value}}
        for seed, value in ((1, 0.6), (2, 0.7))
    ]
    results[1]["final"]["generic/few"] = None
    text = render(seeds_table(results))
    assert "seeds 1, 2" in text
    assert row(text, "primary head")[1:] == ["65.0±63.5", "90.0±0.0", "-", "-"]


def test_one_seed_has_no_spread():
    assert row(render(seeds_table([RESULT])), "primary head")[1] == "61.2"


def test_widest_table_fits_in_80_columns():
    values = dict.fromkeys(FINAL, -0.9999)
    results = [{**RESULT, "final": values}, {**RESULT, "final": dict.fromkeys(FINAL, 0.9)}]
    text = render(seeds_table(results))
    assert "…" not in text
    assert len(row(text.split("personal", 1)[1], "primary head")) == 7


def test_faults_are_named_below_the_views():
    faults = {"lost": 12, "dropped": 0, "huge": 3, "passed": 1, "passed_rounds": [2], "log": []}
    assert render(result_table({**RESULT, "faults": faults})).splitlines()[-1] == (
        "faults: 12 lost, 3 huge, 1 passed"
    )
    for nothing in (None, {"lost": 0, "passed_rounds": [], "log": []}):
        assert "faults" not in render(result_table({**RESULT, "faults": nothing}))

"""Mean ranks and critical differences against published ones (Demšar, JMLR 2006)."""

from __future__ import annotations

import math

import pytest

from fedlt.comparing.ranking import critical_difference, mean_ranks, rankings, ranks

# Table 6 there: AUC of C4.5, C4.5+m, C4.5+cf and C4.5+m+cf on 14 data sets. The last two figures of
# the data set voting are printed as equal; their printed ranks, 2 and 3, say which is larger.
AUC = [
    (0.763, 0.768, 0.771, 0.798), (0.599, 0.591, 0.590, 0.569), (0.954, 0.971, 0.968, 0.967),
    (0.628, 0.661, 0.654, 0.657), (0.882, 0.888, 0.886, 0.898), (0.936, 0.931, 0.916, 0.931),
    (0.661, 0.668, 0.609, 0.685), (0.583, 0.583, 0.563, 0.625), (0.775, 0.838, 0.866, 0.875),
    (1.000, 1.000, 1.000, 1.000), (0.940, 0.962, 0.965, 0.962), (0.619, 0.666, 0.614, 0.669),
    (0.972, 0.981, 0.9751, 0.975), (0.957, 0.978, 0.946, 0.970),
]  # fmt: skip
Q = (1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164)  # Table 5(a), 2 to 10 methods


def test_equal_figures_share_the_mean_of_their_places():
    """Places 1 and 2 are shared by the two highest, 3 to 5 by the three lowest."""
    assert ranks([0.5, 0.9, 0.5, 0.9, 0.5]) == [4, 1.5, 4, 1.5, 4]
    assert ranks([0.1, 0.3, 0.2]) == [3, 1, 2]
    assert ranks([1.0] * 4) == [2.5] * 4


def test_mean_ranks_are_those_of_the_paper():
    assert mean_ranks(AUC) == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=0.0005)


def test_the_critical_difference_is_that_of_the_paper():
    """Section 3.2.2: q 2.569 of four classifiers, and 1.25 on 14 data sets."""
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    for methods, q in enumerate(Q, start=2):
        factor = math.sqrt(methods * (methods + 1) / 6)
        assert critical_difference(methods, 1) / factor == pytest.approx(q, abs=0.0015)


def rows(*figures, **more):
    """Return a row: one result per seed, with generic and personal accuracy."""
    return [
        {"seed": seed, "final": {"generic/accuracy": g, "personal/accuracy": p}, **more}
        for seed, (g, p) in enumerate(figures)
    ]


def test_every_data_set_and_seed_is_a_block():
    """Generic ranks by hand: A 1, 2, 1; B 2, 1, 2. Only A and B stand on both data sets."""
    tables = {
        "x": {
            "A": rows((0.9, 0.1), (0.5, 0.1)),
            "B": rows((0.8, 0.2), (0.6, 0.2)),
            "C": rows((1.0, 0.3), (1.0, 0.3)),
        },
        "y": {"A": rows((0.4, 0.1)), "B": rows((0.3, 0.1))},
    }
    generic, personal = rankings(tables, "final")
    assert (generic.view, personal.view) == ("generic", "personal")
    assert dict(generic.means) == {"A": pytest.approx(4 / 3), "B": pytest.approx(5 / 3)}
    assert list(personal.means.items()) == [
        ("B", pytest.approx(3.5 / 3)),
        ("A", pytest.approx(5.5 / 3)),
    ]
    assert generic.blocks == 3
    assert generic.difference == pytest.approx(1.960 * math.sqrt(2 * 3 / 18), abs=0.001)


def test_a_view_ranks_the_federated_methods_that_have_it():
    table = {
        "A": rows((0.9, 0.1)),
        "no generic model": rows((None, 0.3)),
        "pooled": rows((1.0, 1.0), reference="pooled data"),
        "B": rows((0.8, 0.2)),
    }
    generic, personal = rankings({"x": table}, "final")
    assert list(generic.means) == ["A", "B"]
    assert list(personal.means) == ["no generic model", "B", "A"]


def test_one_method_has_no_critical_difference():
    (generic, _) = rankings({"x": {"A": rows((0.9, 0.1))}}, "final")
    assert generic.difference is None

"""The section ``partition``: what is refused before any data are read, and what is written down."""

from __future__ import annotations

import pytest
import yaml

from fedlt.config import build_config, settings_of, to_yaml, user_code
from fedlt.errors import FedltError


def config(tmp_path, **partition):
    tree = {"name": "a", "rounds": 1, "partition": partition}
    return build_config(tree, tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("partition", "message"),
    [
        ({"scheme": "dirichelt"}, "partition.scheme: unknown 'dirichelt'; nearest: 'dirichlet'"),
        ({"scheme": "natural", "num_clients": 5}, "partition.num_clients: follows from the data"),
        ({"merge": 2}, "partition.merge: is for scheme natural, not dirichlet"),
        (
            {"min_images": 2, "scheme": "iid"},
            "partition.min_images: is for scheme natural, not iid",
        ),
        ({"holders": 3}, "partition.holders: is for scheme specialist"),
        ({"scheme": "specialist", "holders": 11}, "holders: 11 is more than partition.num_clients"),
        ({"options": {"a": 1}}, "partition.options: are for scheme file.py:function"),
        ({"scheme": "local_tail", "local_imbalance_factor": 0.5}, "expected at least 1"),
        ({"uncovered": "keep"}, "expected 'refuse' or 'drop'"),
        ({"scheme": 3}, "partition.scheme is 3; expected text"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, partition, message):
    with pytest.raises(FedltError) as caught:
        config(tmp_path, **partition)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_natural_has_no_number_of_clients_and_reads_back(tmp_path):
    natural = config(tmp_path, scheme="natural", merge=3)
    assert "num_clients" not in yaml.safe_load(to_yaml(natural))["partition"]
    again = build_config(yaml.safe_load(to_yaml(natural)), tmp_path / "b.yaml")
    assert again.partition == natural.partition
    assert "partition.num_clients" not in settings_of(natural)


def test_a_function_counts_by_name_and_content(tmp_path):
    (tmp_path / "p.py").write_text("def f(labels, num_clients, seed):\n    return labels * 0\n")
    options = {"list_path": "who.csv"}
    found = config(tmp_path, scheme="p.py:f", options=options)
    assert found.partition.scheme == f"{tmp_path / 'p.py'}:f"
    assert found.partition.options == {"list_path": str(tmp_path / "who.csv")}
    assert user_code(found)["partition.scheme"] == found.partition.scheme
    settings = settings_of(found)
    assert settings["partition.scheme"] == '"f"'
    assert settings["partition.options.list_path"] == '"by content"'


def test_the_cohort_is_compared_with_the_data_where_the_clients_follow_from_it(tmp_path):
    tree = {"name": "a", "rounds": 1, "clients_per_round": 50, "partition": {"scheme": "natural"}}
    assert build_config(tree, tmp_path / "a.yaml").clients_per_round == 50

"""The partition file that docs/partitions.md shows is one that fedlt reads."""

from __future__ import annotations

import numpy as np
from doc_blocks import BLOCKS

from fedlt.config import load_config
from fedlt.data import prepare_data


def test_the_file_written_by_hand_gives_the_clients_that_it_names(tmp_path):
    """Labels 0 0 0 1 1 0 0 1 in rows 0 to 7: clients have 3 + 1, 2 + 1 and 0 + 1 images."""
    for block in BLOCKS:
        if block.page == "docs/partitions.md" and block.file:
            (tmp_path / block.file).write_text(block.code)
    (tmp_path / "a.yaml").write_text(
        "{name: a, rounds: 1, data: {dataset: 'eight.py:load'}, partition: {file: by_hand.json}}"
    )
    config = load_config(tmp_path / "a.yaml")
    data = prepare_data(config.data, config.partition, seed=1)
    assert data.client_counts.tolist() == [[3, 1], [2, 1], [0, 1]]
    np.testing.assert_array_equal(data.pool_indices, np.arange(8))
    assert [line for line in data.partition_notes if "has no labels_sha256" in line]

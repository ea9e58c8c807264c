"""Evaluation: integer counts of predictions on test images, and the metrics computed from them.

The generic view scores the global model (also called the generic model), the personal view scores
every client's personalised model.

    workers   score_generic, score_client      features -> GenericScores, ClientHits (counting.py)
    driver    PersonalScores.stack, +          add the counts (scores.py)
    driver    generic_metrics, personal_metrics, coverage_metrics  counts -> metrics (cutting.py)
    runs      save_evaluation                  keep the counts (fedlt/runs/evaluations.py)
    result    summarise                        final, last_k, selected, best_on_test (rounds.py)

``metrics.py`` is the table of all names; ``docs/metrics.md`` has their formulas.
"""

from __future__ import annotations

from fedlt.evaluation.counting import client_hits, fused_logits, score_client, score_generic
from fedlt.evaluation.cutting import generic_metrics, personal_metrics
from fedlt.evaluation.generic import Metric
from fedlt.evaluation.local_test import LocalTest, draw_images, evaluated_clients, local_test
from fedlt.evaluation.personal_metrics import client_accuracies, coverage_metrics
from fedlt.evaluation.rounds import rounds_to_evaluate, summarise
from fedlt.evaluation.scores import ClientHits, GenericScores, PersonalScores

__all__ = [
    "ClientHits",
    "GenericScores",
    "LocalTest",
    "Metric",
    "PersonalScores",
    "client_accuracies",
    "client_hits",
    "coverage_metrics",
    "draw_images",
    "evaluated_clients",
    "fused_logits",
    "generic_metrics",
    "local_test",
    "personal_metrics",
    "rounds_to_evaluate",
    "score_client",
    "score_generic",
    "summarise",
]

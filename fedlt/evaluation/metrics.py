"""The table of metrics: name, heading, unit, function and meaning of every number of a run.

In a name <group> stands for many, medium and few; <head> for a head's or a stream's name, <prior>
for a test prior, <b> for a block, <d> for a number of directions, <word> for a method's own name.
``docs/metrics.md`` has a row with the formula of each metric; a test compares table and page.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import fedlt.evaluation.personal_metrics as own
from fedlt.data.shots import GROUPS
from fedlt.evaluation.collapse import class_vectors, neural_collapse, pruned_energy
from fedlt.evaluation.drift import agreement, tail_gradient, update_drift
from fedlt.evaluation.generic import (
    Metric,
    accuracy,
    expected_calibration_error,
    mean_nll,
    mean_recall,
    nonfinite,
    worst_class,
)
from fedlt.evaluation.priors import prior_metrics
from fedlt.evaluation.rank import rank_metrics
from fedlt.evaluation.scores import GenericScores

Unit = Literal["share", "count", "nats", "degrees", "number"]


@dataclass(frozen=True)
class MetricSpec:
    """One line of the table of metrics."""

    name: str  # as in rounds.jsonl
    heading: str  # heading of the metric's column in tables
    unit: Unit
    of: Callable[..., Any] | str  # function that computes the metric; or module that counts it
    meaning: str  # one plain sentence
    best: Literal["max", "min", ""] = "max"  # best value over rounds; "": neither (a count)
    signed: bool = False  # True: shown with its sign
    uses_generic: bool = False  # True: a personal metric that also needs the global model

    def value(self, *given: object) -> Metric:
        """Return the metric's value: the function ``of``, called with the arguments."""
        assert callable(self.of)
        found: Metric = self.of(*given)
        return found


def _of_confusion(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of scores and head, made from a function of a confusion matrix (C, C)."""

    def metric(scores: GenericScores, head: int, classes: Sequence[int] | None) -> Metric:
        value: Metric = function(scores.confusion[head], classes)
        return value

    return metric


METRICS = (
    MetricSpec("generic/accuracy", "accuracy", "share", _of_confusion(accuracy),
        "Share of the test images that the generic model gets right."),
    MetricSpec("generic/balanced", "balanced", "share", _of_confusion(mean_recall),
        "Mean recall over the classes that have test images."),
    MetricSpec("generic/worst_class", "worst class", "share", _of_confusion(worst_class),
        "Lowest recall of a class that has test images."),
    MetricSpec("generic/nll", "likelihood", "nats", mean_nll,
        "Mean of -log p(true class) over the test images.", best="min"),
    MetricSpec("generic/ece", "calibration error", "share", expected_calibration_error,
        "How far confidence and accuracy lie apart, over 15 bins of confidence.", best="min"),
    MetricSpec("generic/nonfinite", "not finite", "count", nonfinite,
        "Test images whose -log p(true class) is not finite.", best=""),
    MetricSpec("generic/<group>", "<group>", "share", _of_confusion(mean_recall),
        "Mean recall over the group's classes that have test images."),
    MetricSpec("generic/<group>_nll", "<group>", "nats", mean_nll,
        "The same as nll over the group's test images.", best="min"),
    MetricSpec("generic/<group>_ece", "<group>", "share", expected_calibration_error,
        "The same as ece over the group's test images.", best="min"),
    MetricSpec("generic/<head>/accuracy", "accuracy", "share", _of_confusion(accuracy),
        "Accuracy of another generic head, or of one stream alone."),
    MetricSpec("generic/<head>/balanced", "balanced", "share", _of_confusion(mean_recall),
        "Mean recall of another generic head, or of one stream alone."),
    MetricSpec("generic/<head>/<group>", "<group>", "share", _of_confusion(mean_recall),
        "Mean recall over a group of another generic head, or of one stream alone."),
    MetricSpec("generic/under_<prior>", "<prior>", "share", prior_metrics,
        "Accuracy of the generic model if test classes came with this prior."),
    MetricSpec("personal/accuracy", "personal", "share", own.accuracy,
        "Mean over clients of their model's accuracy on their own class mix."),
    MetricSpec("personal/p10", "p10", "share", own.p10, "One client in ten has a lower accuracy."),
    MetricSpec("personal/worst10", "worst 10 %", "share", own.worst10,
        "Mean accuracy of the tenth of the clients with the lowest."),
    MetricSpec("personal/worst", "worst", "share", own.worst, "Lowest accuracy of a client."),
    MetricSpec("personal/std", "deviation", "share", own.std,
        "Standard deviation of the accuracy over clients.", best="min"),
    MetricSpec("personal/balanced", "balanced", "share", own.balanced,
        "Mean over clients of the mean recall over the classes that they hold."),
    MetricSpec("personal/<group>", "<group>", "share", own.group_accuracy,
        "Mean accuracy on the part of a client's mix that lies in the group."),
    MetricSpec("personal/<group>_clients", "with <group>", "count", own.group_clients,
        "Clients whose mix has a part in the group.", best=""),
    MetricSpec("personal/accuracy_few_owners", "hold rare classes", "share",
        own.accuracy_few_owners,
        "Mean accuracy over the clients that hold an image of a few-class."),
    MetricSpec("personal/accuracy_others", "hold none", "share", own.accuracy_others,
        "Mean accuracy over the clients that hold no image of a few-class."),
    MetricSpec("personal/majority_guess", "largest class", "share", own.majority_guess,
        "Accuracy of always guessing a client's largest class."),
    MetricSpec("personal/generic", "generic model", "share", own.generic,
        "Mean accuracy of the generic model on the clients' own mixes.", uses_generic=True),
    MetricSpec("personal/gain", "gain", "share", own.gain,
        "Mean of personal minus generic accuracy on the clients' own mixes.",
        signed=True, uses_generic=True),
    MetricSpec("personal/hurt", "worse off", "share", own.hurt,
        "Share of clients whose own model does worse than the generic one.",
        best="min", uses_generic=True),
    MetricSpec("personal/gain_few_owners", "hold rare classes", "share", own.gain_few_owners,
        "Mean gain of the clients that hold an image of a few-class.",
        signed=True, uses_generic=True),
    MetricSpec("personal/gain_others", "hold none", "share", own.gain_others,
        "Mean gain of the clients that hold no image of a few-class.",
        signed=True, uses_generic=True),
    MetricSpec("personal/few_owners", "clients with rare classes", "count", own.few_owners,
        "Clients that hold an image of a few-class.", best=""),
    MetricSpec("personal/accuracy_held", "masked", "share", own.accuracy,
        "Accuracy with predictions restricted to the classes a client holds."),
    MetricSpec("personal/generic_held", "generic, masked", "share", own.generic,
        "The generic model's accuracy under the same mask.", uses_generic=True),
    MetricSpec("personal/gain_held", "gain, masked", "share", own.gain,
        "Mean gain with both models masked.", signed=True, uses_generic=True),
    MetricSpec("personal/accuracy_test_held", "test mask", "share", own.accuracy,
        "Accuracy restricted to the classes of the local test (reference only)."),
    MetricSpec("personal/generic_test_held", "generic, test mask", "share", own.generic,
        "The generic model's accuracy under the same mask.", uses_generic=True),
    MetricSpec("personal/gain_test_held", "gain, test mask", "share", own.gain,
        "Mean gain under the same mask.", signed=True, uses_generic=True),
    MetricSpec("personal/<group>_test_held", "<group>, test mask", "share", own.group_accuracy,
        "Mean accuracy in the group under the same mask."),
    MetricSpec("personal/clients", "clients scored", "count", own.scored,
        "Scored clients.", best=""),
    MetricSpec("personal/excluded", "excluded", "count", own.excluded,
        "Evaluated clients that have no image of a tested class.", best=""),
    MetricSpec("personal/mass_lost", "mass lost", "share", own.mass_lost,
        "Mean share of a client's images in classes without test images.", best=""),
    MetricSpec("personal/participated", "participated", "count", own.participated,
        "Clients sampled at least once so far.", best=""),
    MetricSpec("personal/never", "never sampled", "count", own.never,
        "Clients not sampled yet.", best=""),
    MetricSpec("personal/steps", "local steps", "number", own.steps,
        "Mean local steps that made a personal part since the last broadcast.", best=""),
    MetricSpec("personal/<head>/accuracy", "personal", "share", own.accuracy,
        "Accuracy of another personal head."),
    MetricSpec("personal/<head>/accuracy_held", "masked", "share", own.accuracy,
        "Accuracy of another personal head, masked."),
    MetricSpec("personal/under_<prior>", "<prior>", "share", prior_metrics,
        "Mean accuracy of the personal models if test classes came with this prior."),
    MetricSpec("train/coverage", "clients seen", "share", own.coverage_metrics,
        "Share of the clients sampled at least once so far."),
    MetricSpec("train/coverage_few", "few-images seen", "share", own.coverage_metrics,
        "Share of the few-classes' images that these clients hold."),
    MetricSpec("train/clients", "clients summed", "count", "fedlt.federation.ledger",
        "Clients whose updates are in the round's sum.", best=""),
    MetricSpec("train/excluded", "excluded", "count", "fedlt.simulate",
        "Updates left out of the sums so far.", best=""),
    MetricSpec("train/lost", "lost", "count", "fedlt.federation.faults",
        "Answers lost so far.", best=""),
    MetricSpec("train/dropped", "dropped", "count", "fedlt.federation.faults",
        "Stragglers' answers left out so far.", best=""),
    MetricSpec("train/partial", "partial", "count", "fedlt.federation.faults",
        "Stragglers' answers with fewer steps so far.", best=""),
    MetricSpec("train/corrupt", "corrupt", "count", "fedlt.federation.faults",
        "Updates corrupted so far.", best=""),
    MetricSpec("train/stale", "stale", "count", "fedlt.federation.faults",
        "Answers computed from an old broadcast so far.", best=""),
    MetricSpec("train/nonfinite", "nonfinite", "count", "fedlt.federation.faults",
        "Updates that were not finite so far.", best=""),
    MetricSpec("train/huge", "huge", "count", "fedlt.federation.faults",
        "Updates left out as huge so far.", best=""),
    MetricSpec("train/passed", "passed", "count", "fedlt.federation.faults",
        "Rounds without a step so far.", best=""),
    MetricSpec("train/late", "late", "count", "fedlt.federation.faults",
        "Clients that have not joined yet.", best=""),
    MetricSpec("train/<word>", "<word>", "number", "fedlt.federation.ledger",
        "Mean over the round's examples of what a client plugin reports, such as loss."),
    MetricSpec("privacy/epsilon", "epsilon", "number", "fedlt.federation.privacy_record",
        "Epsilon spent so far, by RDP; the largest of a client's where clients differ.", best=""),
    MetricSpec("privacy/epsilon_pld", "epsilon (PLD)", "number", "fedlt.federation.privacy_record",
        "The same by PLD, which is smaller and right, too.", best=""),
    MetricSpec("privacy/epsilon_median", "median epsilon", "number",
        "fedlt.federation.privacy_record", "Median over clients of their own epsilon.", best=""),
    MetricSpec("privacy/epsilon_owners", "epsilon, rare classes", "number",
        "fedlt.federation.privacy_record",
        "Largest epsilon of a client that holds an image of a few-class.", best=""),
    MetricSpec("privacy/norm", "clipping norm", "number", "fedlt.federation.privacy_record",
        "Norm to which the round's updates were clipped.", best=""),
    MetricSpec("privacy/clipped", "clipped", "share", "fedlt.federation.privacy_record",
        "Share of the round's updates that were longer than the norm.", best=""),
    MetricSpec("privacy/clipped_owners", "clipped, hold rare classes", "share",
        "fedlt.federation.privacy_record",
        "The same over clients that hold an image of a few-class.", best=""),
    MetricSpec("privacy/clipped_others", "clipped, hold none", "share",
        "fedlt.federation.privacy_record",
        "The same over clients that hold no image of a few-class.", best=""),
    MetricSpec("privacy/clipped_top", "clipped, most rare images", "share",
        "fedlt.federation.privacy_record",
        "The same over the tenth of the clients with the largest share of such images.", best=""),
    MetricSpec("privacy/signal", "signal over noise", "number", "fedlt.federation.privacy_record",
        "Length of the sum of the clipped updates over that of the noise.", best=""),
    MetricSpec("diagnostics/nc1", "NC1: spread within classes\nagainst between them",
        "number", neural_collapse,
        "Spread of features within classes against that between them."),
    MetricSpec("diagnostics/nc2_norm", "NC2: class means of unequal\nlength",
        "number", neural_collapse,
        "Relative deviation of the class means' lengths."),
    MetricSpec("diagnostics/nc2_angle", "NC2: class means at unequal\nangles",
        "number", neural_collapse,
        "How far the class means' angles are from a simplex."),
    MetricSpec("diagnostics/nc3", "NC3: class vectors off the\nclass means (0 to 4)",
        "number", neural_collapse,
        "How far the class vectors are from the class means."),
    MetricSpec("diagnostics/nc4", "NC4: head and nearest mean\ndisagree", "share", neural_collapse,
        "Share of images where head and nearest class mean disagree."),
    MetricSpec("diagnostics/<head>/norm_log_count", "norm against log count",
        "number", class_vectors,
        "Correlation of a class vector's length and the log of its count."),
    MetricSpec("diagnostics/<head>/angle_mean", "mean angle", "degrees", class_vectors,
        "Mean angle between two class vectors."),
    MetricSpec("diagnostics/<head>/angle_min", "least angle", "degrees", class_vectors,
        "Least angle between two class vectors."),
    MetricSpec("diagnostics/<head>/angle_std", "its deviation", "degrees", class_vectors,
        "Standard deviation of the angles between class vectors."),
    MetricSpec("diagnostics/<head>/norm_<group>", "norm <group>", "number", class_vectors,
        "Mean length of a group's class vectors."),
    MetricSpec("diagnostics/<head>/angle_<group>", "angle <group>", "degrees", class_vectors,
        "Mean angle of a group's class vectors to the nearest other one."),
    MetricSpec("diagnostics/<head>/pruned_share", "pruned", "share", pruned_energy,
        "Share of zeros in the head's weight."),
    MetricSpec("diagnostics/<head>/pruned", "energy where pruned", "share", pruned_energy,
        "Share of the features' energy where the weight is zero."),
    MetricSpec("diagnostics/<head>/pruned_<group>", "<group>", "share", pruned_energy,
        "The same over a group's classes."),
    MetricSpec("diagnostics/tail_gradient", "Share of the gradient from\nrare classes",
        "share", tail_gradient,
        "The few-classes' share of the cross-entropy's gradient."),
    MetricSpec("diagnostics/tail_images", "images of rare classes", "share", tail_gradient,
        "The few-classes' share of the training images."),
    MetricSpec("diagnostics/block_<b>/<head>/variance_<d>", "first <d>", "share", rank_metrics,
        "Share of the features' variance in the first directions, after a block."),
    MetricSpec("diagnostics/agreement", "Personal and generic model\nagree", "share", agreement,
        "How often personal and generic model predict the same class."),
    MetricSpec("diagnostics/drift_norm", "Drift: length of a client's\nupdate",
        "number", update_drift,
        "Mean length of a client's update against the parameters'."),
    MetricSpec("diagnostics/drift_spread", "Drift: how far the updates\npoint apart (0 to 1)",
        "number", update_drift,
        "How far the clients' updates point apart."),
    MetricSpec("diagnostics/drift_cosine", "update cosine", "number", update_drift,
        "Mean cosine between two clients' updates."),
    MetricSpec("diagnostics/clients", "clients looked at", "count", "fedlt.worker.diagnosis",
        "Clients whose updates and predictions were looked at.", best=""),
)  # fmt: skip


def expand(prefix: str, groups: Iterable[str]) -> Iterator[tuple[str, MetricSpec, str]]:
    """Yield the metrics under a prefix, with <group> replaced; each group's metrics come together.

    Args:
        prefix: Part of the name before the last ``/``, such as ``generic`` or ``personal/<head>``.
        groups: Class groups that replace <group>.

    Yields:
        A name, its line of the table, and its group; "" for a name without <group>.
    """
    known = [one for one in METRICS if one.name.rpartition("/")[0] == prefix]
    lines = [one for one in known if "<prior>" not in one.name]
    for has_group, run in itertools.groupby(lines, lambda one: "<group>" in one.name):
        block = list(run)
        for group in groups if has_group else ("",):
            for one in block:
                yield one.name.replace("<group>", group), one, group


def _pattern(name: str) -> re.Pattern[str]:
    """Return a pattern of all names that a line stands for; <group>, <head> ... are captured."""
    named = name.replace("<group>", f"(?P<group>{'|'.join(GROUPS)})")
    return re.compile(re.sub("(?<!P)<([a-z]+)>", "(?P<\\1>[^/]+)", named))


_PATTERNS = [(_pattern(one.name), one) for one in METRICS]


@cache
def _line(name: str) -> tuple[MetricSpec, dict[str, str]]:
    for pattern, one in _PATTERNS:
        if found := pattern.fullmatch(name):
            return one, found.groupdict()
    return MetricSpec(name, name, "number", "", ""), {}


def spec_of(name: str) -> MetricSpec:
    """Return the table's line for a metric's name; an unknown name gets a line with itself."""
    return _line(name)[0]


def heading_of(name: str) -> str:
    """Return the heading of a metric's column, such as ``few`` for ``personal/few``."""
    one, parts = _line(name)
    return re.sub("<([a-z]+)>", lambda part: parts[part[1]], one.heading)


def by_heading(*names: str) -> dict[str, str]:
    """Return heading -> name for some metrics, in the given order."""
    return {heading_of(name): name for name in names}

"""Top of a report: the question, the answer in a few sentences, and the table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from fedlt.comparing.cells import majority_guess
from fedlt.comparing.sheet import DASH, Sheet, percent, share
from fedlt.comparing.statistics import interval
from fedlt.comparing.verdicts import MIN_SEEDS, Verdict
from fedlt.config.cohort import cohort_size
from fedlt.data.shots import GROUPS
from fedlt.evaluation.generic import mean
from fedlt.evaluation.metrics import by_heading
from fedlt.report.finished import MOMENT, Method, Reading

MOMENTS = {
    "final": "the last round",
    "last_k": "the mean of the last rounds",
    "selected": "one round fixed beforehand on validation data",
    "best_on_test": "the best round on the test set, each number its own",
}
_REST = {
    **by_heading(*(f"generic/{group}" for group in GROUPS)),
    "personal mean": "personal/accuracy",
    **by_heading(*(f"personal/{word}" for word in ("p10", "worst", "gain", "hurt"))),
}


def title(methods: Sequence[Method]) -> str:
    """Return the question that the page answers."""
    if len(methods) == 1:
        return f"How well does {methods[0].label} serve everybody, and each client?"
    return "Which method serves everybody best, and which each client?"


def introduction(reading: Reading) -> str:
    """Return one sentence about the data and the federation."""
    run = reading.methods[0].runs[0]
    config, counts = run.config, run.evaluation.client_counts
    sizes = run.class_counts
    ratio = f"{sizes.max() / max(int(sizes.min()), 1):.3g}"
    tail = ", balanced" if ratio == "1" else f", the largest class {ratio} times the smallest"
    rounds = sorted({int(one.result["rounds"]) for one in reading.runs})
    seeds = sorted({one.seed for one in reading.runs})
    size = cohort_size(config.get("clients_per_round"), len(counts))
    cohort = "all" if size == len(counts) else f"{size} of them"
    return (
        f"{len(reading.methods)} method{'s' if len(reading.methods) > 1 else ''} on "
        f"{config.get('data.dataset')}: {int(counts.sum()):,} training images in "
        f"{counts.shape[1]} classes{tail}, held by {len(counts)} clients, {cohort} in every "
        f"round; {' or '.join(map(str, rounds))} rounds; "
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}."
    )


def _contenders(methods: Sequence[Method], metric: str) -> list[tuple[float, Method]]:
    """Return the federated methods that have a metric, with its mean, best first."""
    which = MOMENT
    found = [
        (statistics.fmean(values), method)
        for method in methods
        if (values := method.values(metric, which)) and not method.reference
    ]
    if metric.startswith("generic/"):
        found = [(mean, method) for mean, method in found if not method.is_average]
    return sorted(found, key=lambda pair: -pair[0])


def summary(reading: Reading, found: Sequence[Verdict] = ()) -> list[str]:
    """Return the findings as sentences; ``found`` are the verdicts."""
    methods = reading.methods
    views = methods[0].scored_on.headlines
    lines = [_view_line(methods, view, metric, found) for view, metric in views.items()]
    lines += [_tail_line(methods), _gain_line(methods)]
    return [line for line in lines if line]


def _interval(method: Method, metric: str, which: str) -> str:
    found = interval(method.values(metric, which))
    if found.half is None:
        return f"{percent(found.mean)} %"
    low, high = max(found.mean - found.half, 0.0), min(found.mean + found.half, 1.0)
    return f"{percent(found.mean)} % (95 % interval {percent(low)} to {percent(high)})"


_VIEW_WORDS = {
    "generic": "One model for everybody, tested on all classes alike",
    "personal": "Each client's own model, on the client's own classes",
}


def _view_line(methods: Sequence[Method], view: str, metric: str, found: Sequence[Verdict]) -> str:
    which = MOMENT
    ranked = _contenders(methods, metric)
    if not ranked:
        return ""
    best = ranked[0][1]
    of = " of a class's images, in the mean over classes" if metric.endswith("/balanced") else ""
    line = f"{_VIEW_WORDS[view]}: {best.label} is right on {_interval(best, metric, which)}{of}"
    if len(ranked) == 1:
        return f"{line}."
    second = ranked[1]
    points = 100 * (ranked[0][0] - second[0])
    close = f"{points:z.1f} points lower" if points >= 0.05 else "practically the same"
    return (
        f"{line}, the highest of {_number_of(ranked, methods)}. Next is {second[1].label} with "
        f"{percent(second[0])} %, {close}. {_doubt(best, second[1], view, found)}"
    )


def _number_of(ranked: Sequence[tuple[float, Method]], methods: Sequence[Method]) -> str:
    """Return the number of ranked methods, with the names of unranked methods."""
    names = {method.label for _, method in ranked}
    rest = [m.label for m in methods if m.label not in names and not m.reference]
    without = f" ({', '.join(rest)} left out: no such model)" if rest else ""
    return f"{len(ranked)}{without}"


def _doubt(best: Method, second: Method, view: str, found: Sequence[Verdict]) -> str:
    """Return the verdict on the best and the second method, in words."""
    if min(len(best.runs), len(second.runs)) < MIN_SEEDS:
        return "With so few seeds the order may be chance."
    pair = {best.label, second.label}
    tests = [one for one in found if one.view == view and {one.row, one.against} == pair]
    if not tests or tests[0].p is None:
        return "The two were not tested against each other: the order may be chance."
    if tests[0].word == "not different":
        return f"The test does not show this difference (p {tests[0].p:z.3f})."
    return f"The test shows this difference (p {tests[0].p:z.3f})."


def _tail_line(methods: Sequence[Method]) -> str:
    many, few = (_contenders(methods, f"generic/{group}") for group in ("many", "few"))
    if not few or not many:
        return ""
    best_mean, best = few[0]
    frequent = {method.label: mean for mean, method in many}.get(best.label)
    if frequent is None:
        return ""
    line = (
        f"Rare classes: {best.label}'s generic model is right on {percent(best_mean)} % of their "
        f"images, on {percent(frequent)} % of the frequent classes'"
    )
    if len(few) == 1:
        return f"{line}."
    lowest = f"{few[-1][1].label} with {percent(few[-1][0])} %"
    return f"{line}; that is the highest of {len(few)}, the lowest of these is {lowest}."


def _gain_line(methods: Sequence[Method]) -> str:
    which = MOMENT
    own = [m for m in methods if not m.reference and not m.is_average]
    gains = {m.label: m.values("personal/gain", which) for m in own}
    known = {label: statistics.fmean(v) for label, v in gains.items() if v and any(v)}
    if not known:
        return ""
    hurt = {m.label: m.values("personal/hurt", which) for m in methods}
    if len(known) == 1:
        label, gain = next(iter(known.items()))
        worse = statistics.fmean(hurt[label])
        return (
            f"A model of its own changes a client's accuracy by {percent(gain, signed=True)} "
            f"points on average with {label}; {percent(worse)} % of the clients are worse off."
        )
    better = sum(gain > 0 for gain in known.values())
    label = max(known, key=lambda name: known[name])
    worse = statistics.fmean(hurt[label])
    return (
        f"A model of its own is better for the clients, on average, than the same method's generic "
        f"one in {better} of the {len(known)} methods that make both. The largest gain, which need "
        f"not be the best model, is {label}'s ({percent(known[label], signed=True)} points; "
        f"{percent(worse)} % of the clients are worse off with their own)."
    )


def main_sheet(methods: Sequence[Method]) -> Sheet:
    """Return the table of the primary heads in both views: mean and 95 % interval over seeds."""
    rows = []
    scored_on = methods[0].scored_on
    columns = {f"generic {n}": f"generic/{word}" for n, word in scored_on.columns.items()} | _REST
    for method in methods:
        said = f" (reference: {method.reference})" if method.reference else ""
        label = f"{method.label}{said}"
        rows.append([label, *map(method.cell, columns.values())])
    notes = [
        f"In %, {MOMENTS[MOMENT]}, mean ± 95 % interval over the seeds; {DASH}: does not exist."
    ]
    if not scored_on.balanced:
        notes.append(f"The {scored_on.name} is not balanced: balanced is the mean recall.")
    guess = majority_guess([method.results for method in methods], MOMENT)
    if guess is not None:
        notes.append(f"Always guessing a client's largest class: {percent(guess)}.")
    if any(method.is_average for method in methods):
        notes.append(
            "~: the generic model is averaged from personal parts; the method itself has none."
        )
    if any(method.reference for method in methods):
        notes.append("A reference is not federated: it says what is possible, and is not ranked.")
    return Sheet("Both views, primary heads", ["method", *columns], rows, notes)


def moments_sheet(methods: Sequence[Method]) -> Sheet:
    """Return the table of both headlines at every moment side by side."""
    columns = {
        f"{view} {which}": (metric, which)
        for which in MOMENTS
        if any((run.result.get(which) or {}) for method in methods for run in method.runs)
        for view, metric in methods[0].scored_on.headlines.items()
    }
    rows = [
        [m.label, *(share(mean(m.values(*column))) for column in columns.values())] for m in methods
    ]
    note = (
        "Mean over the seeds, in %. best_on_test picks each number's best round by looking at the "
        "test set: it flatters, and stands here only for comparison with papers that did so."
    )
    return Sheet("Accuracy by moment", ["method", *columns], rows, [note])

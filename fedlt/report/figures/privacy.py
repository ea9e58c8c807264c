"""Picture of the price of privacy: points lost by class group and kind of client, over epsilon."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fedlt.comparing.cells import is_average
from fedlt.comparing.privacy_price import (
    Price,
    clipped_sheet,
    find_prices,
    price_metrics,
    price_sheet,
)
from fedlt.comparing.sheet import text_of
from fedlt.comparing.statistics import interval
from fedlt.report.finished import MOMENT, Method
from fedlt.report.marks import averaged, explain, said
from fedlt.report.picture import Picture
from fedlt.report.style import legend_below, look, new_figure, points_axis
from fedlt.report.tones import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GENERIC = {
    "generic": "all classes",
    "many": "frequent classes (many)",
    "medium": "middle classes (medium)",
    "few": "rare classes (few)",
}
_PERSONAL = {
    "personal": "all clients",
    "owners": "clients with rare classes",
    "others": "clients without",
}
_HOW = (
    "Accuracy that a private run loses, by epsilon, against the same run without clipping and "
    "noise (the line at 0); further left is more private. Up to the thin line clipping alone takes "
    "it, the rest is the noise. Above the generic model on frequent, middle and rare classes; "
    "below the personal models of clients with and without images of rare classes. Small dots are "
    "seeds, whiskers 95 % intervals over them: one that leaves its panel has its ends in the table."
)
_MARGIN = 0.12  # of the range of the seeds, above and below

Families = Mapping[str, Sequence[Price]]  # name -> prices by epsilon


def privacy_price(methods: Sequence[Method]) -> list[Picture]:
    """Return the picture of what privacy costs frequent and rare classes; none without twins."""
    results = {method.label: method.results for method in methods}
    prices, sheet = find_prices(results), price_sheet(results, MOMENT)
    families = _families(prices)
    if sheet is None or not families:
        return []
    metrics = price_metrics(prices[0].private[0])
    figure = new_figure(5.4)
    made = figure.subplots(2, len(_GENERIC), sharex=True, sharey=True)
    made[1, -1].remove()
    drawn = list(made.flat)[:-1]
    for axes, (word, title) in zip(drawn, (_GENERIC | _PERSONAL).items(), strict=True):
        for place, own in enumerate(families.values()):
            _draw(axes, place, list(families)[place], own, metrics[word])
        axes.axhline(0, color=INK.light, linewidth=1, label="without privacy")
        axes.set_title(title, fontsize=9)
    _shape(drawn, families, metrics)
    made[0, 0].set_ylabel("generic model:\npoints lost")
    made[1, 0].set_ylabel("personal models:\npoints lost")
    legend_below(figure, drawn)
    shown = [method for method in methods if method.label in {one.label for one in prices}]
    marks = averaged(shown)
    explain(figure, marks, "outside upper center")
    alt = f"Lines of the points lost over epsilon. {_alt(sheet.columns, sheet.rows)}"
    alt += said(shown, marks)
    clipped = clipped_sheet(results)
    sheets = [sheet] if clipped is None else [sheet, clipped]
    return [Picture("privacy", "Price of privacy", _HOW, alt, figure, sheets)]


def _families(prices: Sequence[Price]) -> Families:
    """Return the prices that differ in nothing but the amount of privacy, by name."""
    kinds = {str(price.private[0]["privacy"]["mechanism"]) for price in prices}
    found: dict[tuple[str, str], list[Price]] = {}
    for price in prices:
        own = price.private[0]["privacy"]
        if price.epsilon is not None:
            found.setdefault((str(own["twin"]), str(own["mechanism"])), []).append(price)
    families: dict[str, list[Price]] = {}
    for (_, kind), own_prices in found.items():
        name = _name(own_prices[0]) + (f", {kind}" if len(kinds) > 1 else "")
        name = f"{name}: {own_prices[0].label}" if name in families else name
        families[name] = sorted(own_prices, key=lambda price: price.epsilon or 0.0)
    return families


def _draw(axes: Axes, place: int, name: str, own: Sequence[Price], metric: str) -> None:
    """Draw what a family loses in one panel: seeds, mean and interval, and the part of clipping."""
    hollow = metric.startswith("generic/") and is_average(own[0].private)
    style = look(place).line_of(hollow=hollow)
    places, lost = _points(own, metric, "together")
    errors = [min(interval(values).half or 0.0, 1.0) for values in lost]
    means = list(map(statistics.fmean, lost))
    axes.errorbar(places, means, yerr=errors, label=name, elinewidth=0.8, **style)
    for epsilon, values in zip(places, lost, strict=True):
        axes.scatter([epsilon] * len(values), values, s=6, color=style["color"], alpha=0.6)
    thin: dict[str, Any] = {"color": style["color"], "linewidth": 0.9, "linestyle": (0, (2, 2))}
    places, lost = _points(own, metric, "clipping")
    means = list(map(statistics.fmean, lost))
    axes.plot(places, means, label=f"{name}: clipping alone", **thin)


def _points(own: Sequence[Price], metric: str, part: str) -> tuple[list[float], list[list[float]]]:
    """Return epsilons, and what is lost by seed, of the prices for which a part is known."""
    pairs = [(price.epsilon or 0.0, price.parts(MOMENT, metric)[part]) for price in own]
    known = [(epsilon, lost) for epsilon, lost in pairs if lost]
    return [epsilon for epsilon, _ in known], [lost for _, lost in known]


def _shape(panels: Sequence[Axes], families: Families, metrics: Mapping[str, str]) -> None:
    """Set the axes that all panels share: epsilon by powers of two, and points around the seeds."""
    prices = [price for own in families.values() for price in own]
    ticks = sorted({round(price.epsilon or 0.0, 1) for price in prices})
    words = (*_GENERIC, *_PERSONAL)
    lost = [
        value
        for price in prices
        for word in words
        for part in ("together", "clipping")
        for value in price.parts(MOMENT, metrics[word])[part]
    ]
    low, high = min([0.0, *lost]), max([0.01, *lost])
    pad = _MARGIN * (high - low)
    panels[0].set_ylim(low - pad, high + pad)
    points_axis(panels[0].yaxis)
    panels[0].set_xscale("log", base=2)
    panels[0].set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panels[0].minorticks_off()
    panels[0].set_xlim(ticks[0] / 1.4, ticks[-1] * 1.4)
    for axes in panels[len(_GENERIC) - 1 :]:  # the lowest panel of each column
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("epsilon")


def _alt(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    words = []
    for row in rows:
        name = text_of(row[0]).removesuffix(": together")
        if name != text_of(row[0]):
            cells = zip(columns[1:], row[1:], strict=True)
            words.append(f"{name}: {', '.join(f'{word} {text_of(cell)}' for word, cell in cells)}")
    return f"{'; '.join(words)}."


def _name(price: Price) -> str:
    """Return the name of a strategy with its client plugin, which twins share."""
    run = price.private[0]
    plain = run["client"] == "cross_entropy"
    return str(run["strategy"]) if plain else f"{run['strategy']} + {run['client']}"

"""Picture of the price of privacy: points lost by class group and kind of client, over epsilon."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

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
from fedlt.report.picture import Picture
from fedlt.report.style import LOOKS, new_figure, points_axis

_SHOWN = ("many", "medium", "few", "owners", "others")


def privacy_price(methods: Sequence[Method]) -> list[Picture]:
    """Return the picture of what privacy costs frequent and rare classes; none without twins."""
    results = {method.label: method.results for method in methods}
    prices, sheet = find_prices(results), price_sheet(results, MOMENT)
    if sheet is None:
        return []
    families: dict[str, list[Price]] = {}
    for price in prices:
        families.setdefault(str(price.private[0]["privacy"]["twin"]), []).append(price)
    names = {twin: _name(own[0]) for twin, own in families.items()}
    metrics = price_metrics(prices[0].private[0])
    figure = new_figure(3.2)
    made = figure.subplots(1, len(_SHOWN), sharey=True)
    for axes, word in zip(made, _SHOWN, strict=True):
        for look, (twin, own) in enumerate(families.items()):
            found = [
                (price.epsilon or math.nan, lost)
                for price in own
                if (lost := price.parts(MOMENT, metrics[word])["together"])
            ]
            found.sort(key=lambda pair: pair[0])
            means = [statistics.fmean(lost) for _, lost in found]
            errors = [interval(lost).half or 0.0 for _, lost in found]
            places = [epsilon for epsilon, _ in found]
            style = LOOKS[look % len(LOOKS)].line_of()
            axes.errorbar(places, means, yerr=errors, label=names[twin], elinewidth=0.8, **style)
        axes.set_title(word)
        axes.set_xscale("log", base=2)
        axes.set_xlabel("epsilon")
        ticks = sorted({round(price.epsilon or 0, 1) for price in prices})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    made[0].set_ylabel("points lost")
    points_axis(made[0].yaxis)
    figure.legend(*made[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    how = (
        "Accuracy that is lost against the same run without clipping and noise, by epsilon: of the "
        "generic model on frequent, middle and rare classes, and of the personal models of clients "
        "with and without images of rare classes. Whiskers are 95 % intervals over seeds."
    )
    words = [
        f"{text_of(row[0])} {text_of(row[1])}"
        for row in sheet.rows
        if text_of(row[0]).endswith("together")
    ]
    alt = f"Lines of the points lost over epsilon; generic model: {'; '.join(words)}."
    clipped = clipped_sheet(results)
    sheets = [sheet] if clipped is None else [sheet, clipped]
    return [Picture("privacy", "Price of privacy", how, alt, figure, sheets)]


def _name(price: Price) -> str:
    """Return the name of a strategy with its client plugin, which twins share."""
    run = price.private[0]
    plain = run["client"] == "cross_entropy"
    return str(run["strategy"]) if plain else f"{run['strategy']} + {run['client']}"

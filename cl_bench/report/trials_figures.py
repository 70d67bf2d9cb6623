"""Paper figure of what settings cost to find, with matplotlib."""

from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from cl_bench.report import labels, palette
from cl_bench.report.figure_style import x_axis
from cl_bench.report.panels import Panel
from cl_bench.report.trials import Trials
from cl_bench.report.trials_charts import after, names, ticks
from cl_bench.stats import Band

TILE = (2.4, 2.2)  # inches


def draw(
    panel: Panel, found: list[Trials], new: Callable[[float, float], Figure]
) -> Figure:
    """Left the expected score of every method, then the curves of each by trials."""
    figure = new(TILE[0] * (1 + len(found)), TILE[1])
    left, *others = figure.subplots(1, 1 + len(found), squeeze=False)[0]
    shown = names(found)
    for one, name, colour in zip(
        found, shown, palette.ordered(len(found)), strict=True
    ):
        _line(left, np.arange(1, one.settings + 1), one.score, colour, name)
    most = max(one.settings for one in found)
    left.set_xscale("log")
    left.set_xticks(ticks(most), map(str, ticks(most)))
    left.minorticks_off()
    left.set_xlabel("Settings tried")
    left.set_ylabel(f"{labels.axis_title(panel.score or '')}, last 10 %")
    left.legend()
    for axes, one, name in zip(others, found, shown, strict=True):
        colours = palette.ordered(len(one.curves))
        for (budget, band), colour in zip(one.curves.items(), colours, strict=True):
            _line(axes, one.blocks.middles, band, colour, after(budget))
        axes.set_title(name, loc="left")
        x_axis(axes, panel)
        axes.legend()
    return figure


def _line(axes, x: np.ndarray, band: Band, colour: str, name: str) -> None:
    seen = np.isfinite(band.estimate)
    axes.plot(x[seen], band.estimate[seen], color=colour, label=name)
    axes.fill_between(
        x[seen], band.low[seen], band.high[seen], color=colour, alpha=0.16, lw=0
    )

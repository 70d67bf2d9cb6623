"""Paper figures with matplotlib: one per metric and one per sweep, as PNG and SVG."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cl_bench.report import (
    first_tasks,
    forgetting_figures,
    labels,
    pair_figures,
    palette,
    trials,
    trials_figures,
)
from cl_bench.report.figure_style import STYLE, x_axis
from cl_bench.report.palette import Stroke
from cl_bench.report.panels import Arm, Panel
from cl_bench.report.sweeps import Sweep, short, shown, sweeps

WIDTH, HEIGHT = 3.5, 2.4  # inches: one column of a two-column paper
TILE = (2.1, 1.7)


def write(folder: Path, panels: list[Panel]) -> list[Path]:
    """Writes <metric>.png/.svg, <metric>_by_layer.* and sweep_<method>_<setting>.*.

    Of a long study <score>_first_tasks.*, the tasks that a block would average away.
    Where the accuracy matrix was recorded, task_accuracy.* and accuracy_matrix.* too;
    pollution.* and similarity.* where those were, pollution_<layer>.* where its layers
    were. trials.* where a method has several settings.

    With several benchmarks each name starts with the benchmark's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with matplotlib.rc_context(STYLE):
        for panel in panels:
            prefix = f"{panel.benchmark}_" if len(panels) > 1 else ""
            for name, figure in _all(panel):
                paths += _save(folder / file_name(prefix + name), figure)
    return paths


def file_name(name: str) -> str:
    """A name with nothing in it that a file system or a shell might misread."""
    return re.sub(r"[^A-Za-z0-9_.=-]+", "_", name).strip("._") or "figure"


def _save(stem: Path, figure: Figure) -> list[Path]:
    png, svg = (stem.with_name(stem.name + end) for end in (".png", ".svg"))
    figure.savefig(png)
    figure.set_layout_engine("none")  # laid out once is enough
    figure.savefig(svg, metadata={"Date": None})
    return [png, svg]


def _all(panel: Panel) -> Iterator[tuple[str, Figure]]:
    arms = {arm.label: arm for arm in shown(panel)[0]}
    strokes = palette.strokes(list(arms.values()))
    for metric in top_metrics(panel):
        yield metric, _single(panel, metric, arms, strokes)
    if early := first_tasks.of(panel, arms):
        figure = _single(early[0], panel.score or "", early[1], strokes)
        yield f"{panel.score}_first_tasks", figure
    for metric, parts in layer_metrics(panel).items():
        yield f"{metric}_by_layer", _tiles(panel, parts, arms, strokes)
    recorded = {n: a.accuracies for n, a in arms.items() if a.accuracies is not None}
    if recorded:
        yield "task_accuracy", forgetting_figures.curves(recorded, _figure)
        yield "accuracy_matrix", forgetting_figures.matrices(recorded, _figure)
    pairs = {name: arm.pairs for name, arm in arms.items()}
    yield from pair_figures.all_of(pairs, _figure)
    for sweep in sweeps(panel):
        name = f"sweep_{sweep.method}_{short(sweep.setting)}"
        several = len({arm.study for arm in panel.arms}) > 1
        yield (f"{name}_{sweep.study}" if several else name), _sweep(panel, sweep)
    if found := trials.of(panel):
        yield "trials", trials_figures.draw(panel, found, _figure)


def top_metrics(panel: Panel) -> list[str]:
    """Metrics with a figure of their own: the score first, no all-zero divergence."""
    names = [m for m in panel.metrics if labels.parent(m) == m]
    if not any(arm.diverged.any() for arm in panel.arms):
        names = [m for m in names if m != "diverged"]
    known = [m for m in (panel.score, *labels.LABELS) if m in names and m != "diverged"]
    return list(dict.fromkeys([*known, *(m for m in names if m != "diverged"), *names]))


def layer_metrics(panel: Panel) -> dict[str, list[str]]:
    """Parent -> its parts: 'dead_units' -> ['dead_units/h1', 'dead_units/h2']."""
    found: dict[str, list[str]] = {}
    for metric in panel.metrics:
        if labels.parent(metric) != metric:
            found.setdefault(labels.parent(metric), []).append(metric)
    return found


def _single(
    panel: Panel, metric: str, arms: dict[str, Arm], strokes: dict[str, Stroke]
) -> Figure:
    # A legend of many rows gets height of its own, or it leaves the axes none.
    rows = -(-len(arms) // _legend_columns(list(arms)))
    figure = _figure(WIDTH, HEIGHT + 0.15 * max(0, rows - 4))
    axes = figure.subplots()
    _curves(axes, panel, metric, arms, strokes)
    axes.set_ylabel(labels.axis_title(metric))
    _legend(figure, axes)
    return figure


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)  # no display, no global state
    return figure


def _curves(
    axes: Any, panel: Panel, metric: str, arms: dict[str, Arm], strokes: dict
) -> None:
    for name, arm in arms.items():
        band, (colour, dash) = arm.drawn.get(metric), strokes[name]
        if band is None or not (seen := band.n > 0).any():
            continue
        x = arm.blocks.middles[seen]
        style = (0, [d / 1.5 for d in dash]) if dash else "-"
        axes.plot(x, band.estimate[seen], color=colour, ls=style, label=name)
        low, high = band.low[seen], band.high[seen]
        axes.fill_between(x, low, high, color=colour, alpha=0.16, lw=0)
    x_axis(axes, panel)
    axes.margins(x=0.01)


def _legend(figure: Figure, axes: Any, wide: int = 1) -> None:
    handles, names = axes.get_legend_handles_labels()
    if names:
        figure.legend(
            handles, names, ncols=wide * _legend_columns(names),
            loc="outside upper left", handlelength=1.8, columnspacing=1.2,
            borderaxespad=0.2,
        )  # fmt: skip


def _legend_columns(names: list[str]) -> int:
    return max(1, min(len(names), 52 // (max(map(len, names)) + 6)))


def _tiles(
    panel: Panel, metrics: list[str], arms: dict[str, Arm], strokes: dict[str, Stroke]
) -> Figure:
    columns = min(3, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = _figure(TILE[0] * columns, TILE[1] * rows + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes, metric in zip(grid.flat, metrics, strict=False):
        _curves(axes, panel, metric, arms, strokes)
        axes.set_title(metric.partition("/")[2], loc="left")
        axes.label_outer()
    for axes in grid.flat[len(metrics) :]:
        axes.remove()
    figure.supylabel(labels.axis_title(labels.parent(metrics[0])), fontsize=8)
    _legend(figure, grid.flat[0])
    return figure


def _sweep(panel: Panel, sweep: Sweep) -> Figure:
    families = list(dict.fromkeys(p.others for p in sweep.points))
    rows = -(-len(families) // (2 * _legend_columns(families)))
    above = rows if len(families) > 1 else 0
    beside = max(0, len(sweep.best_arms) - 12)
    figure = _figure(2 * WIDTH, HEIGHT + 0.15 * (above + beside))
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.3))
    _scores(left, panel, sweep)
    colours = palette.ordered(len(sweep.best_arms))
    arms = {f"{short(sweep.setting)}={text}": arm for text, arm in sweep.best_arms}
    strokes = {name: Stroke(c, ()) for name, c in zip(arms, colours, strict=True)}
    _curves(right, panel, panel.score or "", arms, strokes)
    right.set_ylabel(labels.axis_title(panel.score or ""))
    right.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    left.set_title(sweep.method, loc="left")
    if len(families) > 1:
        _legend(figure, left, wide=2)
    return figure


def _scores(axes: Any, panel: Panel, sweep: Sweep) -> None:
    texts = list(dict.fromkeys(p.text for p in sweep.points))
    families = list(dict.fromkeys(p.others for p in sweep.points))
    for i, others in enumerate(families):
        own = [p for p in sweep.points if p.others == others]
        own = [p for p in own if np.isfinite(p.score.estimate)]
        at = [
            texts.index(p.text) if sweep.scale == "category" else p.value for p in own
        ]
        colour = palette.COLOURS[i % len(palette.COLOURS)]
        axes.plot(
            at, [p.score.estimate for p in own], "o-", ms=3.5, color=colour,
            label=others,
        )  # fmt: skip
        axes.vlines(
            at, [p.score.low for p in own], [p.score.high for p in own], color=colour
        )
    if sweep.scale == "category":
        axes.set_xticks(range(len(texts)), texts)
    elif sweep.scale == "log":
        axes.set_xscale("log")
    if sweep.scale != "category":
        values = list(dict.fromkeys((p.value, p.text) for p in sweep.points))
        room = 32  # characters; of more, every so many names are left out
        shown = values[:: -(-sum(len(name) + 1 for _, name in values) // room)]
        axes.set_xticks([v for v, _ in shown], [name for _, name in shown])
        axes.minorticks_off()
    axes.set_xlabel(short(sweep.setting))
    axes.set_ylabel(f"{labels.axis_title(panel.score or '')}, last 10 %")

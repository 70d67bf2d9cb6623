"""Paper figures of task pairs with matplotlib: a row of heat-maps an arm."""

from collections.abc import Callable, Iterator

import numpy as np
from matplotlib.figure import Figure

from cl_bench.report.accuracies import mean_over_runs
from cl_bench.report.label_table import PAIRS
from cl_bench.report.pair_charts import AXES, domains, tasks_shown
from cl_bench.report.pairs import SCALES, Pairs, parts
from cl_bench.stats import Floats

TILE = (1.9, 1.6)  # inches


def all_of(
    arms: dict[str, Pairs], new: Callable[[float, float], Figure]
) -> Iterator[tuple[str, Figure]]:
    """(name, figure) of each family, and of each part of the network recorded."""
    for family, part, every in parts(list(arms.values())):
        recorded = {name: of for name, of in zip(arms, every, strict=True) if of}
        yield f"{family}_{part}" if part else family, heat_maps(family, recorded, new)


def heat_maps(
    family: str,
    recorded: dict[str, dict[str, Floats]],
    new: Callable[[float, float], Figure],
) -> Figure:
    """The means over runs of a family of `PAIRS`: rows are arms, columns kinds.

    `recorded` is label of the arm -> kind -> [runs, T, T].
    """
    kinds = [k for k in PAIRS[family] if any(k in found for found in recorded.values())]
    bounds = domains(list(recorded.values()))
    figure = new(TILE[0] * len(kinds) + 0.5, TILE[1] * len(recorded) + 0.3)
    grid = figure.subplots(len(recorded), len(kinds), squeeze=False)
    for row, (label, found) in zip(grid, recorded.items(), strict=True):
        row[0].set_ylabel(label)
        for axes, kind in zip(row, kinds, strict=True):
            axes.set_title(PAIRS[family][kind], loc="left")
            if kind in found:
                limits = bounds.get(kind, (None, None))
                _heat_map(figure, axes, kind, found[kind], limits)
    figure.supylabel(AXES[family][0], fontsize=8)
    figure.supxlabel(AXES[family][1], fontsize=8)
    return figure


def _heat_map(figure: Figure, axes, kind: str, matrix: Floats, limits) -> None:
    tasks = tasks_shown(matrix.shape[-1])
    mean = SCALES.get(kind, 1.0) * mean_over_runs(matrix)[0][np.ix_(tasks, tasks)]
    low, high = limits
    image = axes.imshow(mean, vmin=low, vmax=high, cmap="viridis", aspect="auto")
    axes.grid(False)
    at = np.unique(np.linspace(0, len(tasks) - 1, min(5, len(tasks))).round())
    names = [tasks[int(i)] + 1 for i in at]
    axes.set_xticks(at, names)
    axes.set_yticks(at, names)
    figure.colorbar(image, ax=axes)

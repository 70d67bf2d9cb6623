"""Paper figures of the accuracy matrix with matplotlib: one tile an arm."""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cl_bench.report import palette
from cl_bench.report.accuracies import (
    MOST_CELLS,
    MOST_CURVES,
    Accuracies,
    extent,
    mean_over_runs,
    picked,
)

TILE = (2.1, 1.8)  # inches
Recorded = dict[str, Accuracies]  # label of the arm -> its accuracies
NewFigure = Callable[[float, float], Figure]


def matrices(recorded: Recorded, new: NewFigure) -> Figure:
    """The mean accuracy matrix of every arm, on one scale of colours."""
    figure, tiles = _tiles(len(recorded), new)
    image: Any = None
    for axes, (label, found) in zip(tiles, recorded.items(), strict=True):
        image = _matrix(axes, found)
        axes.set_title(label, loc="left")
    figure.supxlabel("Accuracy on task", fontsize=8)
    figure.supylabel("After training on task", fontsize=8)
    figure.colorbar(image, ax=tiles, label="Test accuracy (%)", shrink=0.8)
    return figure


def _matrix(axes: Any, found: Accuracies) -> Any:
    tasks = picked(found.matrix, MOST_CELLS)
    mean = 100.0 * mean_over_runs(found.matrix[:, tasks][:, :, tasks])[0]
    axes.grid(False)
    at = np.unique(
        np.linspace(0, len(tasks) - 1, min(5, len(tasks))).round().astype(int)
    )
    names = [tasks[i] + 1 for i in at]
    axes.set_xticks(at, names)
    axes.set_yticks(at, names)
    return axes.imshow(mean, vmin=0.0, vmax=100.0, cmap="viridis", aspect="auto")


def curves(recorded: Recorded, new: NewFigure) -> Figure:
    """Each task's accuracy from its own training on, one line a task."""
    figure, tiles = _tiles(len(recorded), new, sharey=True)
    domain = extent(list(recorded.values()))
    for axes, (label, found) in zip(tiles, recorded.items(), strict=True):
        tasks = picked(found.matrix, MOST_CURVES)
        mean = 100.0 * mean_over_runs(found.matrix)[0]
        after = np.arange(1, len(mean) + 1)
        for colour, j in zip(palette.ordered(len(tasks)), tasks, strict=True):
            line = {"color": colour, "marker": ".", "ms": 3, "label": f"{j + 1}"}
            axes.plot(after[j:], mean[j:, j], **line)
        axes.set_title(label, loc="left")
        axes.set_ylim(*domain)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    handles, names = tiles[0].get_legend_handles_labels()
    figure.legend(
        handles, names, ncols=min(len(names), 5 * min(3, len(recorded))),
        loc="outside upper left", title="Task", handlelength=1.0, columnspacing=0.8,
    )  # fmt: skip
    figure.supxlabel("After training on task", fontsize=8)
    figure.supylabel("Test accuracy (%)", fontsize=8)
    return figure


def _tiles(
    count: int, new: NewFigure, sharey: bool = False
) -> tuple[Figure, list[Any]]:
    columns = min(3, count)
    rows = -(-count // columns)
    figure = new(TILE[0] * columns + 0.7, TILE[1] * rows + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=sharey)
    for axes in grid.flat[count:]:
        axes.remove()
    return figure, list(grid.flat[:count])

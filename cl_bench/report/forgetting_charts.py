"""Figures of the accuracy matrix: a heat-map and the tasks' curves, one an arm."""

from typing import Any

import altair as alt
import numpy as np

from cl_bench import stats
from cl_bench.report import palette
from cl_bench.report.accuracies import (
    MOST_CELLS,
    MOST_CURVES,
    Accuracies,
    mean_over_runs,
    picked,
)
from cl_bench.report.charts import ROWS, finished, rounded, task_axis
from cl_bench.stats import Floats

ACCURACY = "Test accuracy (%)"


def heat_map(label: str, found: Accuracies) -> dict[str, Any]:
    """Mean accuracy over runs: columns are tasks, rows what was trained last.

    Row 0 is the untrained network, where that was evaluated.
    """
    matrix = np.concatenate([found.initial[:, None, :], found.matrix], axis=1)
    tasks = picked(found.matrix, MOST_CELLS)
    after = [0, *(i + 1 for i in tasks)]
    rows = []
    for i in after:
        mean, n = mean_over_runs(100.0 * matrix[:, i, :])
        rows += [
            {"task": j + 1, "after": i, "mean": rounded(mean[j]), "n": int(n[j])}
            for j in tasks
            if n[j]
        ]
    chart = alt.Chart(ROWS).mark_rect().encode(
        x=alt.X("task:O", title="Accuracy on task", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("after:O", title="After training on task"),
        color=alt.Color(
            "mean:Q", title=None, scale=alt.Scale(scheme="viridis", domain=[0, 100]),
            legend=alt.Legend(gradientLength=160, gradientThickness=10, format="d"),
        ),
        tooltip=[
            alt.Tooltip("after:O", title="After training on task"),
            alt.Tooltip("task:O", title="Task"),
            alt.Tooltip("mean:Q", title=ACCURACY, format=".4~g"),
            alt.Tooltip("n:Q", title="Runs"),
        ],
    )  # fmt: skip
    return finished(_titled(chart, label), rows, 230, "")


def curves(
    label: str, found: Accuracies, domain: tuple[float, float]
) -> dict[str, Any]:
    """Each task's accuracy from the end of its own training on, one line a task."""
    tasks = picked(found.matrix, MOST_CURVES)
    rows = [row for j in tasks for row in _curve(found.matrix[:, :, j], j)]
    names = [j + 1 for j in tasks]
    scale = alt.Scale(domain=names, range=palette.ordered(len(names)))
    key = alt.Legend(
        title="Task", titleOrient="left", columns=len(names), columnPadding=8,
        symbolSize=60,
    )  # fmt: skip
    longest = found.matrix.shape[1]
    base = alt.Chart(ROWS).encode(
        x=alt.X(
            "after:Q", title="After training on task",
            scale=alt.Scale(nice=False, domain=[1, max(longest, 2)]),
            axis=task_axis(longest),
        ),
        color=alt.Color("task:O", scale=scale, legend=key, sort=None),
    )  # fmt: skip
    y = alt.Scale(zero=False, domain=list(domain))
    band = base.mark_area(clip=True, opacity=0.12).encode(
        y=alt.Y("low:Q", scale=y, title=ACCURACY), y2="high:Q"
    )
    line = base.mark_line(strokeWidth=1.6, point={"size": 22}).encode(
        y=alt.Y("mean:Q", scale=y, title=ACCURACY),
        tooltip=[
            alt.Tooltip("task:O", title="Task"),
            alt.Tooltip("after:Q", title="After training on task"),
            alt.Tooltip("mean:Q", title=ACCURACY, format=".4~g"),
            alt.Tooltip("low:Q", title="95 % from", format=".4~g"),
            alt.Tooltip("high:Q", title="95 % to", format=".4~g"),
            alt.Tooltip("n:Q", title="Runs"),
        ],
    )
    layers = [band, line] if any("low" in row for row in rows) else [line]
    return finished(_titled(alt.layer(*layers), label), rows, 190, "")


def _curve(accuracy: Floats, j: int) -> list[dict[str, Any]]:
    """[runs, T] -> one row for each task i ≥ j that some run has reached."""
    band = stats.band(100.0 * accuracy[:, j:])
    rows = []
    for i in np.nonzero(band.n)[0]:
        row: dict[str, Any] = {"task": j + 1, "after": int(i) + j + 1}
        row["n"] = int(band.n[i])
        row["mean"] = rounded(band.estimate[i])
        if np.isfinite(band.low[i]):
            row |= {"low": rounded(band.low[i]), "high": rounded(band.high[i])}
        rows.append(row)
    return rows


def _titled(chart: Any, label: str) -> Any:
    """A long label is cut with dots: it must not widen the figure."""
    return chart.properties(title=alt.TitleParams(label, limit=270))

"""Figures of pollution: a heat-map by task pair, one a kind and arm."""

from typing import Any

import altair as alt

from cl_bench.report.accuracies import MOST_CELLS, mean_over_runs
from cl_bench.report.charts import ROWS, finished, rounded
from cl_bench.report.labels import POLLUTION
from cl_bench.stats import Floats

CAPTION = (
    "<b>Pollution of task i (rows) by the weights that task j protects (columns)</b>, "
    "after the last task, mean over runs. Of a task with itself the first two are 1 and "
    "the absolute share is ½. The ratio as printed is ill-conditioned: its denominator "
    "changes sign, so that a few examples decide it; compare the other kinds. Causal is "
    "test accuracy on task i minus that with the weights of task j set to 0."
)


def heat_maps(label: str, found: dict[str, Floats]) -> list[dict[str, Any]]:
    """One heat-map a kind: the mean over runs of P by task pair."""
    return [
        _heat_map(f"{label}: {title}", 100.0 * found[kind] if kind == "causal" else found[kind])
        for kind, title in POLLUTION.items()
        if kind in found
    ]  # fmt: skip


def _heat_map(title: str, matrix: Floats) -> dict[str, Any]:
    mean, n = mean_over_runs(matrix)
    tasks = range(min(MOST_CELLS, len(mean)))
    rows = [
        {"i": i + 1, "j": j + 1, "mean": rounded(mean[i, j]), "n": int(n[i, j])}
        for i in tasks
        for j in tasks
        if n[i, j]
    ]
    chart = alt.Chart(ROWS).mark_rect().encode(
        x=alt.X("j:O", title="By the weights of task j", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("i:O", title="Pollution of task i"),
        color=alt.Color(
            "mean:Q", title=None, scale=alt.Scale(scheme="viridis"),
            legend=alt.Legend(gradientLength=160, gradientThickness=10, format=".2~g"),
        ),
        tooltip=[
            alt.Tooltip("i:O", title="Task i"), alt.Tooltip("j:O", title="Task j"),
            alt.Tooltip("mean:Q", title="P", format=".4~g"),
            alt.Tooltip("n:Q", title="Runs"),
        ],
    )  # fmt: skip
    shown = chart.properties(title=alt.TitleParams(title, limit=270))
    return finished(shown, rows, 200, "")

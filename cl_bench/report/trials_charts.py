"""Figures of what settings cost to find: score against trials, curves by trials."""

from typing import Any

import altair as alt
import numpy as np

from cl_bench.report import charts, labels, palette, trials
from cl_bench.report.charts import ROWS, finished, rounded
from cl_bench.report.palette import Stroke
from cl_bench.report.panels import Panel
from cl_bench.report.trials import Trials

CAPTION = (
    "<b>What the settings cost to find.</b> Left: expected score over the last tenth of "
    "the tasks of the best of so many settings, drawn without replacement from those of "
    "the study. Others: the same for the curve of each method. On every seed the setting "
    "is the best one of the other seeds, so that a lucky run does not choose itself; mean "
    "over seeds and 95 % bootstrap interval. Scores choose and are shown on the same "
    "test sets."
)


def all_of(panel: Panel, key: str) -> dict[str, dict[str, Any]]:
    """Element id -> specification; {} where no method has several settings."""
    found = trials.of(panel)
    if not found:
        return {}
    shown = names(found)
    specs = {f"trials-{key}": score_against_trials(panel, found, shown)}
    for i, (one, name) in enumerate(zip(found, shown, strict=True)):
        specs[f"trials-{key}-{i}"] = curves(panel, one, name)
    return specs


def score_against_trials(
    panel: Panel, found: list[Trials], names: list[str]
) -> dict[str, Any]:
    """One line a method; x is the number of settings tried."""
    rows = [
        {
            "arm": name,
            "trials": i + 1,
            "n": int(one.score.n[i]),
            "mean": rounded(one.score.estimate[i]),
            "low": rounded(one.score.low[i]),
            "high": rounded(one.score.high[i]),
        }
        for name, one in zip(names, found, strict=True)
        for i in range(one.settings)
        if np.isfinite(one.score.estimate[i])
    ]
    several = all(np.isfinite(row["low"]) for row in rows)
    rows = rows if several else [_without_interval(row) for row in rows]
    scale = alt.Scale(domain=names, range=palette.ordered(len(names)))
    key = alt.Legend(columns=2) if len(names) > 1 else None
    title = f"{labels.axis_title(panel.score or '')}, last 10 %"
    most = max(one.settings for one in found)
    base = alt.Chart(ROWS).encode(
        x=alt.X(
            "trials:Q", title="Settings tried",
            scale=alt.Scale(type="log", nice=False),
            axis=alt.Axis(values=ticks(most), format="d"),
        ),
        color=alt.Color("arm:N", scale=scale, legend=key, sort=None),
    )  # fmt: skip
    y = alt.Scale(zero=False)
    band = base.mark_area(opacity=0.16).encode(
        y=alt.Y("low:Q", scale=y, title=title), y2="high:Q"
    )
    line = base.mark_line(strokeWidth=1.8).encode(
        y=alt.Y("mean:Q", scale=y, title=title),
        tooltip=[
            alt.Tooltip("arm:N", title="Method"),
            alt.Tooltip("trials:Q", title="Settings tried"),
            alt.Tooltip("mean:Q", title=title, format=".4~g"),
            alt.Tooltip("n:Q", title="Runs"),
        ],
    )
    return finished(alt.layer(*([band] if several else []), line), rows, 220, "")


def _without_interval(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k not in ("low", "high")}


def ticks(most: int) -> list[int]:
    """1, 2, 5, 10, ... and the last."""
    steps = [k * 10**e for e in range(6) for k in (1, 2, 5)]
    return [step for step in steps if step < 0.8 * most] + [most]


def curves(panel: Panel, one: Trials, name: str) -> dict[str, Any]:
    """The method's curve, one line a number of trials; colours from few to many."""
    metric = panel.score or ""
    bands = {after(budget): band for budget, band in one.curves.items()}
    anyone = panel.arms[0]._replace(blocks=one.blocks)
    arms = {n: anyone._replace(drawn={metric: band}) for n, band in bands.items()}
    colours = palette.ordered(len(arms))
    strokes = {n: Stroke(c, ()) for n, c in zip(arms, colours, strict=True)}
    spec = charts.curves(panel, metric, arms, strokes, height=200, room=46)
    return spec | {"title": {"text": name, "limit": 270}}


def after(budget: int) -> str:
    """'3 trials'."""
    return "1 trial" if budget == 1 else f"{budget} trials"


def names(found: list[Trials]) -> list[str]:
    """The methods, each once: with its study where two have it, else numbered."""
    methods = [one.method for one in found]
    shown = [
        m if methods.count(m) == 1 else f"{one.study}/{m}"
        for m, one in zip(methods, found, strict=True)
    ]
    seen: dict[str, int] = {}
    for i, name in enumerate(shown):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            shown[i] = f"{name} ({seen[name]})"
    return shown

"""Vega-Lite specifications of the page's figures, made with Altair.

Data fields have fixed names (`arm`, `task`, `mean`, ...): a name that a user chose is
only ever a value, never part of an expression.
"""

from typing import Any

import altair as alt
import numpy as np

from cl_bench.report import labels, palette
from cl_bench.report.blocks import EXAMPLES
from cl_bench.report.palette import Stroke
from cl_bench.report.panels import Arm, Panel
from cl_bench.report.sweeps import Sweep, short

FONT = "Inter, 'Helvetica Neue', 'Segoe UI', Arial, 'Liberation Sans', sans-serif"
ROWS = alt.NamedData(name="rows")  # filled in last: Altair would check every row
CONFIG = {
    "font": FONT,
    "background": "transparent",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "#444", "titleColor": "#222", "labelFontSize": 12,
        "titleFontSize": 12.5, "titleFontWeight": 500, "titlePadding": 8,
        "gridColor": "#E8E8E8", "domainColor": "#888", "tickColor": "#888",
        "tickSize": 4, "labelPadding": 4,
    },
    "axisX": {"grid": False, "tickCount": 8},
    "axisY": {"domain": False, "ticks": False, "tickCount": 5},
    "legend": {
        "orient": "top", "title": None, "labelFontSize": 12.5, "labelColor": "#222",
        "symbolType": "stroke", "symbolStrokeWidth": 3,
        "symbolSize": 220, "symbolOpacity": 1, "columnPadding": 18, "rowPadding": 4, "offset": 10,
    },
    "title": {"fontSize": 12.5, "fontWeight": 600, "color": "#222", "anchor": "start"},
}  # fmt: skip


def curves(
    panel: Panel, metric: str, arms: dict[str, Arm], strokes: dict[str, Stroke],
    *, height: int = 300, part: str = "", room: int = 130,
    domain: tuple[float, float] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Mean curves with interval bands; `arms` by the name they have in the legend.

    `part` titles a small multiple ('h1'), which has no legend of its own; `room` is
    the width of a legend's row in characters.
    """
    rows = [
        row
        for name, arm in arms.items()
        if metric in arm.drawn
        for row in _rows(panel, name, arm, metric)
    ]
    names = list(arms)
    scale = alt.Scale(domain=names, range=[strokes[n].colour for n in names])
    dashes = alt.Scale(domain=names, range=[list(strokes[n].dash) for n in names])
    key = None if part else _legend(names, room)
    pick = alt.selection_point(name="pick", fields=["arm"], bind="legend")
    base = alt.Chart(ROWS).encode(
        x=_x(panel), color=alt.Color("arm:N", scale=scale, legend=key, sort=None)
    )
    title = labels.axis_title(labels.parent(metric) if part else metric)
    y = alt.Scale(zero=False, domain=list(domain) if domain else alt.Undefined)
    band = base.mark_area().encode(
        y=alt.Y("low:Q", scale=y, title=title),
        y2="high:Q",
        opacity=alt.condition(pick, alt.value(0.16), alt.value(0.02)),
    )
    line = base.mark_line(strokeWidth=1.8, clip=bool(domain)).encode(
        y=alt.Y("mean:Q", scale=y, title=title),
        strokeDash=alt.StrokeDash("arm:N", scale=dashes, legend=key, sort=None),
        opacity=alt.condition(pick, alt.value(1.0), alt.value(0.12)),
    )
    near = alt.selection_point(
        name="near", on="pointerover", nearest=True, empty=False, clear="pointerout"
    )
    dots = base.mark_point(filled=True, size=55).encode(
        y="mean:Q",
        opacity=alt.condition(near, alt.value(1.0), alt.value(0.0)),
        tooltip=_tooltip(title, _hover(panel)),
    )
    layers = [band, line.add_params(pick), dots.add_params(near)]
    if not any("low" in row for row in rows):
        layers = layers[1:]
    return finished(alt.layer(*layers), rows, height, part)


def _x(panel: Panel) -> alt.X:
    """Tasks from 1, or 20k examples."""
    over_examples = panel.axis == EXAMPLES
    ticks = alt.Axis(format="~s") if over_examples else task_axis(panel.num_tasks)
    scale = alt.Scale(nice=False, zero=False)
    return alt.X(f"{_field(panel)}:Q", title=panel.axis, scale=scale, axis=ticks)


def _hover(panel: Panel) -> alt.Tooltip:
    comma = "," if panel.axis == EXAMPLES else alt.Undefined
    return alt.Tooltip(f"{_field(panel)}:Q", title=panel.axis, format=comma)


def _field(panel: Panel) -> str:
    return panel.axis.lower()  # 'task' or 'examples'


def task_axis(num_tasks: int) -> alt.Axis:
    """Of few tasks each has its tick: there is no task 1.5."""
    if num_tasks > 12:
        return alt.Axis()
    ticks = list(range(1, num_tasks + 1))
    return alt.Axis(values=ticks, tickCount=num_tasks, format="d")


def _legend(names: list[str], room: int) -> alt.Legend:
    """As many columns as the names leave room for; a longer name is cut with dots."""
    longest = max(map(len, names), default=1) + 5  # with its symbol and a gap
    columns = max(1, min(len(names), room // longest))
    return alt.Legend(columns=columns, labelLimit=7 * room - 40)


def _rows(panel: Panel, name: str, arm: Arm, metric: str) -> list[dict[str, Any]]:
    rows, band = [], arm.drawn[metric]
    for i in np.nonzero(band.n)[0]:
        place = rounded(arm.blocks.middles[i])
        row = {"arm": name, _field(panel): place, "n": int(band.n[i])}
        row["mean"] = rounded(band.estimate[i])
        if np.isfinite(band.low[i]):
            row |= {"low": rounded(band.low[i]), "high": rounded(band.high[i])}
        rows.append(row)
    return rows


def rounded(value: float) -> float | int:
    """Five figures are more than a screen can show; the CSV has them all."""
    number = float(f"{value:.5g}")
    return int(number) if number.is_integer() and abs(number) < 1e9 else number


def _tooltip(title: str, place: alt.Tooltip) -> list[Any]:
    return [
        alt.Tooltip("arm:N", title="Arm"),
        place,
        alt.Tooltip("mean:Q", title=title, format=".4~g"),
        alt.Tooltip("low:Q", title="95 % from", format=".4~g"),
        alt.Tooltip("high:Q", title="95 % to", format=".4~g"),
        alt.Tooltip("n:Q", title="Runs"),
    ]


def sweep_scores(panel: Panel, sweep: Sweep, *, height: int = 220) -> dict[str, Any]:
    """Final score against the value of one setting, one line per other settings."""
    rows = []
    for point in sweep.points:
        if not np.isfinite(point.score.estimate):
            continue
        x = point.text if sweep.scale == "category" else float(point.value)
        row = {"arm": point.others or sweep.method, "value": x}
        row |= {"n": len(point.arm.runs), "mean": rounded(point.score.estimate)}
        if np.isfinite(point.score.low):
            row["low"] = rounded(point.score.low)
            row["high"] = rounded(point.score.high)
        rows.append(row)
    names = list(dict.fromkeys(str(row["arm"]) for row in rows))
    kind = "N" if sweep.scale == "category" else "Q"
    texts = list(dict.fromkeys(p.text for p in sweep.points))
    x = alt.X(f"value:{kind}", title=short(sweep.setting), **_x_axis(sweep, texts))
    value = alt.Tooltip(f"value:{kind}", title=short(sweep.setting))
    scale = alt.Scale(domain=names, range=_cycled(len(names)))
    key = _legend(names, 46) if len(names) > 1 else None
    base = alt.Chart(ROWS).encode(
        x=x, color=alt.Color("arm:N", scale=scale, legend=key, sort=None)
    )
    title = f"{labels.axis_title(panel.score or '')}, last 10 %"
    y = alt.Scale(zero=False)
    rule = base.mark_rule(strokeWidth=1.6).encode(
        y=alt.Y("low:Q", scale=y, title=title), y2="high:Q"
    )
    line = base.mark_line(strokeWidth=1.4, opacity=0.6).encode(
        y=alt.Y("mean:Q", scale=y, title=title)
    )
    dots = base.mark_point(filled=True, size=70, opacity=1).encode(
        y="mean:Q", tooltip=_tooltip(title, value)
    )
    chart = alt.layer(*([rule] if any("low" in r for r in rows) else []), line, dots)
    return finished(chart, rows, height, "")


def _x_axis(sweep: Sweep, texts: list[str]) -> dict[str, Any]:
    if sweep.scale == "category":
        return {"sort": texts, "axis": alt.Axis(labelAngle=0)}
    kind = alt.Scale(type="log") if sweep.scale == "log" else alt.Scale(zero=False)
    kind.padding = 24
    kind.nice = False
    values = sorted({float(p.value) for p in sweep.points})
    return {"scale": kind, "axis": alt.Axis(values=values, format="~g")}


def _cycled(n: int) -> list[str]:
    return [palette.COLOURS[i % len(palette.COLOURS)] for i in range(n)]


def finished(
    chart: Any, rows: list[dict[str, Any]], height: int, title: str
) -> dict[str, Any]:
    """The specification with its data, in the page's style, as wide as its place."""
    chart = chart.properties(width="container", height=height)
    if title:
        chart = chart.properties(title=title)
    spec = chart.to_dict()
    spec["datasets"] = {ROWS.name: rows}
    spec["config"] = CONFIG
    spec["autosize"] = {"type": "fit-x", "contains": "padding"}
    return spec

"""The report as one HTML page that needs no network and no second file."""

import html
import json
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cl_bench.atomic import replacing
from cl_bench.report import (
    charts,
    cost_tables,
    first_tasks,
    forgetting_charts,
    html_tables,
    labels,
    pair_charts,
    palette,
    sections,
    trials_charts,
)
from cl_bench.report.accuracies import extent
from cl_bench.report.figures import layer_metrics, top_metrics
from cl_bench.report.palette import Stroke
from cl_bench.report.panels import Arm, Panel
from cl_bench.report.scores import best
from cl_bench.report.studies import Study
from cl_bench.report.summary import Row
from cl_bench.report.sweeps import Sweep, short, shown, sweeps

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; "
    "script-src 'unsafe-inline' 'unsafe-eval'"
)


class Figure(NamedTuple):
    """One or several charts under one caption (HTML)."""

    charts: dict[str, dict[str, Any]]  # element id -> specification
    caption: str
    layout: str = ""  # class of the element around several charts
    name: str = ""  # for screen readers


def write(
    path: Path, studies: list[Study], panels: list[Panel], rows: list[list[Row]],
    ledger: list[dict[str, Any]],
) -> None:  # fmt: skip
    """Writes the page, whole or not at all."""
    specs: dict[str, dict[str, Any]] = {}
    body = [sections.header(studies, panels)]
    for i, (panel, found) in enumerate(zip(panels, rows, strict=True)):
        body.append(_panel(panel, found, f"{i}", specs))
    if len(panels) > 1:
        body.insert(1, html_tables.across(panels))
    body += [cost_tables.ledger(ledger), sections.definitions(panels)]
    body.append(sections.provenance(studies))
    title = " + ".join(dict.fromkeys(s.name for s in studies))
    with replacing(path) as file:
        file.write(_document(title, "\n".join(body), specs).encode())


def _document(title: str, body: str, specs: dict[str, dict[str, Any]]) -> str:
    import vl_convert

    # The type stub asks for a snippet; the default one is what defines vegaEmbed.
    bundle = vl_convert.javascript_bundle(vl_version="6.4")  # pyrefly: ignore
    bundle = bundle.replace("</script", "<\\/script")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{html.escape(title)} – cl_bench report</title>
<style>{_file("style.css")}</style>
</head>
<body>
<main>
<noscript><p class="warning">The figures of this page need JavaScript; the folder
figures/ beside it holds the same ones.</p></noscript>
{body}
</main>
<script type="application/json" id="specs">{as_script_data(specs)}</script>
<script type="module">{bundle}
{_file("embed.js")}</script>
</body>
</html>
"""


def as_script_data(value: Any) -> str:
    """JSON that can stand inside a <script> element, whatever the names in it."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _file(name: str) -> str:
    return resources.files("cl_bench.report").joinpath(name).read_text(encoding="utf-8")


def _panel(panel: Panel, rows: list[Row], key: str, specs: dict[str, Any]) -> str:
    arms, reduced = shown(panel)
    strokes = palette.strokes(arms)
    named = {arm.label: arm for arm in arms}
    parts = [sections.panel_head(panel, rows, strokes, f"b{key}")]
    parts.append(sections.curves_head(panel, arms, reduced))
    drawn = [_figure(f, specs) for f in _curve_figures(panel, named, strokes, key)]
    parts += [*drawn[:1], f'<div class="figures">{"".join(drawn[1:])}</div>']
    for i, (metric, names) in enumerate(layer_metrics(panel).items()):
        figure = _layers(panel, metric, names, named, strokes, f"{key}-{i}")
        parts.append(_figure(figure, specs))
    matrices = [*_matrix_figures(arms, key), *_pair_figures(arms, key)]
    parts += [_figure(f, specs) for f in matrices]
    swept = sweeps(panel)
    if swept:
        parts.append("<h3>Hyper-parameter sweeps</h3>")
    for i, sweep in enumerate(swept):
        parts.append(_figure(_sweep_figure(panel, sweep, f"{key}-{i}"), specs))
    if of_trials := trials_charts.all_of(panel, key):
        name = "Line charts: score against the number of settings tried"
        figure = Figure(of_trials, trials_charts.CAPTION, "grid", name)
        parts.append(_figure(figure, specs))
    return "\n".join(parts)


def _figure(figure: Figure, specs: dict[str, Any]) -> str:
    specs |= figure.charts
    name = html.escape(figure.name, quote=True)
    boxes = "".join(
        f'<div class="chart" id="{i}" role="img" aria-label="{name}"></div>'
        for i in figure.charts
    )
    if figure.layout:
        boxes = f'<div class="{figure.layout}">{boxes}</div>'
    return f"<figure>{boxes}<figcaption>{figure.caption}</figcaption></figure>"


def _curve_figures(
    panel: Panel, arms: dict[str, Arm], strokes: dict[str, Stroke], key: str
) -> list[Figure]:
    """The score at full width, then its first tasks and the other metrics in pairs."""
    found, by = [], panel.axis.lower()
    for i, metric in enumerate(top_metrics(panel)):
        height, room = (210, 60) if i else (320, 130)
        spec = charts.curves(panel, metric, arms, strokes, height=height, room=room)
        caption = sections.curve_caption(panel, metric, arms)
        name = f"Line chart: {labels.axis_title(metric)} by {by}"
        found.append(Figure({f"curves-{key}-{i}": spec}, caption, name=name))
    if early := first_tasks.of(panel, arms):
        found.insert(1, _first_tasks(*early, strokes, key))
    return found


def _first_tasks(
    panel: Panel, arms: dict[str, Arm], strokes: dict[str, Stroke], key: str
) -> Figure:
    metric = panel.score or ""
    spec = charts.curves(panel, metric, arms, strokes, height=210, room=60)
    caption = first_tasks.caption(panel)
    name = f"Line chart: {labels.axis_title(metric)} of the first tasks"
    return Figure({f"curves-{key}-first": spec}, caption, name=name)


def _matrix_figures(arms: list[Arm], key: str) -> list[Figure]:
    """Accuracy matrices and the tasks' curves, of the arms that recorded them."""
    recorded = [(a.label, a.accuracies) for a in arms if a.accuracies is not None]
    if not recorded:
        return []
    domain = extent([found for _, found in recorded])
    curves = {
        f"tasks-{key}-{i}": forgetting_charts.curves(label, found, domain)
        for i, (label, found) in enumerate(recorded)
    }
    maps = {
        f"matrix-{key}-{i}": forgetting_charts.heat_map(label, found)
        for i, (label, found) in enumerate(recorded)
    }
    return [
        Figure(
            curves, sections.TASK_CURVES, "grid", "Line charts: test accuracy by task"
        ),
        Figure(maps, sections.MATRICES, "grid", "Heat-maps: the accuracy matrices"),
    ]


def _pair_figures(arms: list[Arm], key: str) -> list[Figure]:
    """Heat-maps by task pair, of the arms that recorded them."""
    found = pair_charts.all_of([(arm.label, arm.pairs) for arm in arms], key)
    return [Figure(maps.charts, maps.caption, "grid", maps.name) for maps in found]


def _layers(
    panel: Panel, metric: str, parts: list[str], arms: dict[str, Arm],
    strokes: dict[str, Stroke], key: str,
) -> Figure:  # fmt: skip
    domain = _extent(parts, arms)
    specs = {
        f"curves-{key}-part{i}": charts.curves(
            panel, part, arms, strokes, height=150, part=part.partition("/")[2],
            domain=domain,
        )
        for i, part in enumerate(parts)
    }  # fmt: skip
    title = labels.axis_title(metric)
    caption = f"<b>{html.escape(title)} by layer</b>, colours as above."
    return Figure(specs, caption, "grid", f"Line charts: {title} by layer")


def _extent(metrics: list[str], arms: dict[str, Arm]) -> tuple[float, float] | None:
    ends = [
        float(v)
        for arm in arms.values()
        for metric in metrics
        if metric in arm.drawn
        for curve in arm.drawn[metric][:3]
        for v in curve[np.isfinite(curve)]
    ]
    if not ends or min(ends) == max(ends):
        return None
    room = 0.03 * (max(ends) - min(ends))
    low = min(ends) - room
    return (0.0 if min(ends) >= 0 > low else low), max(ends) + room


def _sweep_figure(panel: Panel, sweep: Sweep, key: str) -> Figure:
    names = {f"{short(sweep.setting)} = {text}": arm for text, arm in sweep.best_arms}
    colours = palette.ordered(len(names))
    strokes = {n: Stroke(c, ()) for n, c in zip(names, colours, strict=True)}
    metric = panel.score or ""
    specs = {
        f"sweep-{key}": charts.sweep_scores(panel, sweep),
        f"values-{key}": charts.curves(
            panel, metric, names, strokes, height=220, room=66
        ),
    }
    winner = best(panel, [point.arm for point in sweep.points])
    caption = sections.sweep_caption(panel, sweep, winner)
    name = f"Charts: {sweep.method}, score against {short(sweep.setting)}"
    return Figure(specs, caption, "pair", name)

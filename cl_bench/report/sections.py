"""The page's text around figures and tables, as HTML; every name is escaped here."""

import html
import json
import shlex
from typing import Any

from cl_bench.report import (
    cost_tables,
    forgetting_table,
    html_tables,
    labels,
    plasticity_table,
)
from cl_bench.report.blocks import EXAMPLES
from cl_bench.report.label_table import AVERAGE
from cl_bench.report.palette import Stroke
from cl_bench.report.panels import Arm, Panel
from cl_bench.report.studies import Study
from cl_bench.report.summary import FEW, Row, key_reading
from cl_bench.report.sweeps import Sweep, short, shown

TASK_CURVES = (
    "<b>Each task through training.</b> Test accuracy on a task after it and each later "
    "one was trained: mean over runs, bands their 95 % bootstrap intervals. Of more than "
    "ten tasks, ten evenly spaced ones are drawn."
)
MATRICES = (
    "<b>Accuracy matrix R.</b> Test accuracy (%) on each task (columns) after training "
    "on each task (rows), mean over runs; row 0 is the untrained network. Below the "
    "diagonal: what is remembered; above it: tasks not learned yet. Empty: undefined or "
    "not evaluated; long streams are drawn in steps (tables/accuracy_matrix.csv has all)."
)


def text(value: Any) -> str:
    """Any value as escaped text, safe in elements and attributes."""
    return html.escape(str(value), quote=True)


def header(studies: list[Study], panels: list[Panel]) -> str:
    """Title, what the page is about, and where to find what."""
    names = " + ".join(dict.fromkeys(text(s.name) for s in studies))
    seeds = {run.seed for s in studies for run in s.runs}
    facts = [
        _count(len(panels), "benchmark"),
        _count(sum(len(p.arms) for p in panels), "arm"),
        _count(len(seeds), "seed"),
        _count(sum(len(s.runs) for s in studies), "run"),
        _count(max(p.num_tasks for p in panels), "task"),
    ]
    links = [(f"b{i}", text(p.benchmark)) for i, p in enumerate(panels)]
    links += [("compute", "Compute"), ("definitions", "Definitions")]
    links += [("provenance", "Provenance")]
    nav = "".join(f'<a href="#{to}">{name}</a>' for to, name in links)
    return (
        f'<header><h1>{names}</h1><p class="meta">cl_bench report · '
        f"{' · '.join(facts)}</p></header>\n<nav>{nav}</nav>"
    )


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def panel_head(
    panel: Panel, rows: list[Row], strokes: dict[str, Stroke], place: str
) -> str:
    """Heading, warnings, key reading, summary and cost table of one benchmark."""
    parts = [f'<h2 id="{place}">{text(panel.benchmark)}</h2>', *_warnings(rows)]
    if panel.score is not None:
        parts += [_reading(panel, rows), html_tables.summary(panel, rows, strokes)]
        if panel.score != AVERAGE:  # what that loses between tasks is forgotten
            parts.append(plasticity_table.html(panel, rows, strokes))
    parts.append(forgetting_table.html(panel, rows, strokes))
    parts.append(cost_tables.cost(rows, strokes))
    return "\n".join(parts)


def _warnings(rows: list[Row]) -> list[str]:
    found = []
    if missing := sum(row.unfinished for row in rows):
        total = sum(row.n for row in rows)
        found.append(
            f"{missing} of {total} runs have not reached their last task. Their numbers "
            "are of the tasks done so far; run the study's command again to finish it."
        )
    fewest = min(row.n for row in rows)
    if fewest == 1:
        found.append("An arm with a single run has no interval (–).")
    elif fewest < FEW:
        found.append(
            f"Some arms have {fewest} runs only: a bootstrap interval over fewer than "
            f"{FEW} runs is too narrow to be trusted as a 95 % one."
        )
    return [f'<p class="warning">{line}</p>' for line in found]


def _reading(panel: Panel, rows: list[Row]) -> str:
    kept = {arm.label for arm in shown(panel)[0]}
    lines = [
        f"<b>{text(name)}</b> {text(line)}"
        for name, line in key_reading(panel, rows)
        if name in kept
    ]
    metric = text(labels.label(panel.score or "").title)
    lasts = {row.arm.last for row in rows}
    last = max(lasts)
    window = f"the last {last} tasks" if last > 1 else "the last task"
    window = window if len(lasts) == 1 else "the last tenth of an arm's tasks"
    return (
        f'<p class="reading">{metric}, mean over runs; the end is the mean over '
        f"{window}: {'; '.join(lines)}.</p>"
    )


def curves_head(panel: Panel, arms: list[Arm], reduced: bool) -> str:
    """Heading of the learning curves, and what all of them have in common."""
    lines = []
    if any(len(arm.runs) > 1 for arm in arms):
        lines.append("Lines are means over runs, bands their 95 % bootstrap intervals")
    if panel.axis == EXAMPLES:
        lines.append(
            "Arms differ in the length of their tasks: curves run over examples (steps "
            "times batch size), each point at the middle of those it is the mean over "
            "(so too what is measured at a task's start)"
        )
    sizes = sorted({arm.blocks.size for arm in panel.arms})
    if sizes[-1] > 1:
        some = " to ".join(str(size) for size in dict.fromkeys((sizes[0], sizes[-1])))
        lines.append(
            f"Each point is the mean of {some} consecutive tasks"
            f"{', depending on the arm' if len(sizes) > 1 else ''} "
            "(tables/curves.csv has every task)"
        )
    if reduced:
        lines.append(
            f"Of {len(panel.arms)} arms {len(arms)} are drawn, where settings were tried "
            "against each other the best at the end; the others are in the table and "
            "the sweeps"
        )
    if any(arm.oracle for arm in arms):
        lines.append("Short dashes: oracles, which know what the stream does not offer")
    lines.append("Click a name in a legend to bring it out in every figure")
    return f'<h3>Learning curves</h3>\n<p class="note">{". ".join(lines)}.</p>'


def curve_caption(panel: Panel, metric: str, arms: dict[str, Arm]) -> str:
    """What the figure shows, and how it is computed."""
    known = labels.label(metric)
    caption = f"<b>{text(labels.axis_title(metric))}</b>"
    if known.formula:
        caption += f": {text(known.formula)}"
    if any(arm.diverged.any() for arm in arms.values()) and metric != "diverged":
        caption += f". {_divergence(metric, panel)}"
    return f"{caption}."


def _divergence(metric: str, panel: Panel) -> str:
    if metric == panel.score or labels.label(metric).worst is not None:
        return "From the task of its divergence on, a run counts as the worst score"
    return "Diverged runs are left out from that task on"


def sweep_caption(panel: Panel, sweep: Sweep, winner: Arm | None) -> str:
    """Method, setting, what the two charts show, and the best setting."""
    score = text(labels.label(panel.score or "").title).lower()
    line = (
        f"<b>{text(sweep.method)}, {text(short(sweep.setting))}.</b> Left: {score} over "
        "the last tenth of the tasks, mean and 95 % bootstrap interval over runs"
    )
    if len({point.others for point in sweep.points}) > 1:
        line += ", one line for each combination of its other settings"
    line += ". Right: learning curves per value, each at the best other settings."
    if winner is not None:
        line += f" Best at the end: {text(winner.label)}."
        line += " It was chosen on the seeds shown here, which favours it."
    return line


def definitions(panels: list[Panel]) -> str:
    """How every number of the page is computed."""
    metrics = dict.fromkeys(m for p in panels for m in p.metrics)
    known = {labels.parent(m): labels.label(labels.parent(m)) for m in metrics}
    rows = [
        f"<dt>{text(found.title)} <code>{text(name)}</code></dt>"
        f"<dd>{text(found.formula or 'see the component of this name')}</dd>"
        for name, found in known.items()
    ]
    return (
        '<h2 id="definitions">Definitions</h2>\n'
        f"<dl>{''.join(rows)}</dl>\n"
        "<p>Intervals are percentile bootstraps over runs (seeds), 95 %; over several "
        "benchmarks the runs are resampled within each (Agarwal et al. 2021). The tasks "
        "of one run are not independent and are never resampled. A difference is paired: "
        "runs of one seed share their tasks and initial weights. A run that diverged "
        "counts as the worst score from that task on and is never dropped. Tasks are "
        "counted from 1.</p>"
    )


def provenance(studies: list[Study]) -> str:
    """Where each study's numbers come from."""
    parts = ['<h2 id="provenance">Provenance</h2>']
    for study in studies:
        if len(studies) > 1:
            parts.append(f"<h3>{text(study.name)}</h3>")
        rows = [f"<dt>{text(k)}</dt><dd>{text(v)}</dd>" for k, v in _facts(study)]
        parts.append(f"<dl>{''.join(rows)}</dl>")
        config = json.dumps(study.config, indent=1, sort_keys=True, default=str)
        parts.append(
            "<details><summary>Resolved configuration</summary>"
            f"<pre>{text(config)}</pre></details>"
        )
    return "\n".join(parts)


def _facts(study: Study) -> list[tuple[str, str]]:
    """Key and value of everything in provenance.json, commands as one would type."""
    found = [("workdir", study.workdir.name)]
    for key, value in study.provenance.items():
        if key == "command_line" and isinstance(value, list):
            found.append(("command", shlex.join(map(str, value))))
        elif key == "resumed" and isinstance(value, list):
            found.append(("resumed", _count(len(value), "time")))
        elif key != "jax_config":
            found.append((key.replace("_", " "), _plain(value)))
    groups = study.groups.values()
    for key in ("strategy", "lane_width"):
        used = {str(g[key]) for g in groups if g.get(key) is not None}
        if used:
            found.append((key.replace("_", " "), ", ".join(sorted(used))))
    return found


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        inner = [f"{k} {_plain(v)}" for k, v in value.items() if v not in (None, "")]
        return ", ".join(inner)
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    if isinstance(value, float):
        return f"{value:,.1f}"
    return "–" if value is None or value == "" else str(value)

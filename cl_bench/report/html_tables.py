"""The page's tables of scores: one benchmark's arms, and all benchmarks together."""

import html
import math
from typing import Any

import numpy as np

from cl_bench import stats
from cl_bench.report import charges, labels
from cl_bench.report.palette import Stroke
from cl_bench.report.panels import Panel
from cl_bench.report.scores import baseline, final_scores, lower_is_better
from cl_bench.report.summary import FEW, Row, cost, number
from cl_bench.stats import Interval

Column = tuple[str, str]  # heading, what it means in small print


def text(value: Any) -> str:
    """Any value as escaped text."""
    return html.escape(str(value), quote=True)


def interval(value: Interval, unit: str, signed: bool = False, note: str = "") -> str:
    """An estimate with its interval below it; a dash where there is none."""
    if not math.isfinite(value.estimate):
        return "–"
    sign = "+" if signed and value.estimate > 0 else ""
    bounds = "–"
    if math.isfinite(value.low):
        bounds = f"{number(value.low, unit)} to {number(value.high, unit)}"
    small = f"{bounds} · {note}" if note else bounds
    return f"{sign}{number(value.estimate, unit)}<small>{small}</small>"


def table(columns: list[Column], rows: list[list[str]], caption: str) -> str:
    """Rows of finished HTML cells; the first cell of a row is its header."""
    head = "".join(
        f'<th scope="col">{name}{f"<span>{note}</span>" if note else ""}</th>'
        for name, note in columns
    )
    body = "\n".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(c if c.startswith("<td") else f"<td>{c}</td>" for c in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><caption>{caption}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def arm_name(row: Row, strokes: dict[str, Stroke]) -> str:
    """Swatch and label."""
    name = text(row.arm.label)
    if row.arm.label in strokes:
        colour, dash = strokes[row.arm.label]
        kind = ";border-top-style:dashed" if dash else ""
        swatch = f'<span class="swatch" style="border-color:{colour}{kind}"></span>'
        name = swatch + name
    return name


def summary(panel: Panel, rows: list[Row], strokes: dict[str, Stroke]) -> str:
    """Scores of every arm."""
    known = labels.label(panel.score or "")
    unit = known.unit
    bases = {row.baseline for row in rows} - {""}
    base = text(next(iter(bases))) if len(bases) == 1 else "the baseline"
    columns = [
        ("Arm", ""), ("Runs", ""), ("First task", unit), ("Best task", unit),
        ("Last 10 %", unit), ("Whole stream", unit), (f"Against {base}", "last 10 %"),
        ("Diverged", "runs"), *charges.COLUMNS,
    ]  # fmt: skip
    cells = [
        [
            arm_name(row, strokes),
            str(row.n),
            interval(row.first, unit),
            interval(row.best, unit, note=f"task {row.best_task}"),
            f'<td class="main">{interval(row.last, unit)}</td>',
            interval(row.stream, unit),
            _difference(row, unit, lower_is_better(panel)),
            f"{row.diverged} of {row.n}" if row.diverged else "0",
            *charges.cells(row.cost),
        ]
        for row in rows
    ]  # fmt: skip
    better = f" {known.better.capitalize()} is better." if known.better else ""
    caption = (
        f"<b>{text(known.title)}.</b>{better} Mean over runs, with its 95 % bootstrap "
        "interval below. Best task: of the mean curve, so chance favours it. Against "
        f"{base}: mean difference of runs with the same seed, which share tasks and "
        "initial weights; in colour where the interval over at least "
        f"{FEW} pairs leaves out 0.{charges.NOTE}"
    )
    if any(row.arm.oracle for row in rows):
        caption += " Oracle: knows what the stream does not offer."
    return table(columns, cells, caption)


def _difference(row: Row, unit: str, lower: bool) -> str:
    if not row.baseline:
        return "–"
    shown = interval(row.difference, unit, signed=True)
    low, high = row.difference.low, row.difference.high
    if row.pairs < FEW or not (low > 0 or high < 0):
        return shown
    good = (low > 0) != lower
    return f'<td class="{"better" if good else "worse"}">{shown}</td>'


def across(panels: list[Panel]) -> str:
    """Arms that several benchmarks have, over all of these; '' where there is none."""
    metric = panels[0].score
    if metric is None or any(p.score != metric for p in panels):
        return ""
    found: dict[str, list[Panel]] = {}
    for panel in panels:
        for arm in panel.arms:
            found.setdefault(arm.label, []).append(panel)
    rows = [_across(name, on) for name, on in found.items() if len(on) > 1]
    if not rows:
        return ""
    unit = labels.label(metric).unit
    columns = [
        ("Arm", ""), ("Benchmarks", ""), ("IQM", unit), ("Mean", unit),
        ("Better than its baseline", "% of pairs of runs"), *charges.COLUMNS,
    ]  # fmt: skip
    caption = (
        f"<b>{text(labels.label(metric).title)} over the last tenth of the tasks, all "
        "benchmarks together.</b> IQM: mean of the middle half of the runs. 95 % "
        "bootstrap intervals, runs resampled within each benchmark. Probability that a "
        "run is better than one of the backprop baseline, ties one half, mean over "
        "benchmarks (Agarwal et al. 2021). Memory and FLOPs: the largest of the "
        "benchmarks."
    )
    return '<h2 id="across">All benchmarks</h2>' + table(columns, rows, caption)


def _across(name: str, panels: list[Panel]) -> list[str]:
    ours, theirs, costs = [], [], []
    for panel in panels:
        arm = next(a for a in panel.arms if a.label == name)
        costs.append(cost(arm))
        base = baseline(panel, arm.study)
        sign = -1.0 if lower_is_better(panel) else 1.0
        ours.append(_finite(sign * final_scores(panel, arm)))
        if base is not None and base is not arm:
            theirs.append(_finite(sign * final_scores(panel, base)))
    sign = -1.0 if lower_is_better(panels[0]) else 1.0
    won = "–"
    complete = len(theirs) == len(ours) and all(len(s) for s in (*ours, *theirs))
    if complete:
        share = stats.probability_of_improvement(ours, theirs)
        won = interval(Interval(*(100 * v for v in share)), "%")
    unit = labels.label(panels[0].score or "").unit
    signed = [sign * scores for scores in ours]
    return [
        text(name),
        str(len(panels)),
        interval(stats.bootstrap(signed, stats.iqm), unit),
        interval(stats.bootstrap(signed), unit),
        won,
        *charges.cells(charges.largest(costs)),
    ]


def _finite(scores: stats.Floats) -> stats.Floats:
    return scores[np.isfinite(scores)]

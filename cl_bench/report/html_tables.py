"""The page's tables: scores, costs, all benchmarks together, compiled groups."""

import html
import math
from typing import Any

from cl_bench import stats
from cl_bench.report import labels
from cl_bench.report.palette import Stroke
from cl_bench.report.panels import Panel
from cl_bench.report.summary import (
    Row,
    baseline,
    final_scores,
    lower_is_better,
    number,
    quantity,
)
from cl_bench.stats import Interval

Column = tuple[str, str]  # heading, what it means in small print


def text(value: Any) -> str:
    """Any value as escaped text."""
    return html.escape(str(value), quote=True)


def interval(value: Interval, signed: bool = False) -> str:
    """An estimate with its interval below it; a dash where there is none."""
    if not math.isfinite(value.estimate):
        return "–"
    sign = "+" if signed and value.estimate > 0 else ""
    if not math.isfinite(value.low):
        return f"{sign}{number(value.estimate)}<small>–</small>"
    bounds = f"{number(value.low)} to {number(value.high)}"
    return f"{sign}{number(value.estimate)}<small>{bounds}</small>"


def _table(columns: list[Column], rows: list[list[str]], caption: str) -> str:
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
    """Swatch, label, oracle mark."""
    name = text(row.arm.label)
    if row.arm.label in strokes:
        colour, dash = strokes[row.arm.label]
        kind = ";border-top-style:dashed" if dash else ""
        swatch = f'<span class="swatch" style="border-color:{colour}{kind}"></span>'
        name = swatch + name
    mark = '<span class="mark">oracle</span>' if row.arm.oracle else ""
    return name + mark


def summary(panel: Panel, rows: list[Row], strokes: dict[str, Stroke]) -> str:
    """Scores of every arm."""
    known = labels.label(panel.score or "")
    unit = known.unit
    bases = {row.baseline for row in rows} - {""}
    base = text(next(iter(bases))) if len(bases) == 1 else "the baseline"
    columns = [
        ("Arm", ""), ("Runs", ""), ("First task", unit), ("Best task", unit),
        ("Last 10 %", unit), ("Whole stream", unit), (f"Against {base}", "last 10 %"),
        ("Diverged", "runs"),
    ]  # fmt: skip
    cells = [
        [
            arm_name(row, strokes),
            str(row.n),
            interval(row.first),
            interval(row.best) + (f"<small>task {row.best_task}</small>"),
            f"<td><b>{interval(row.last)}</b></td>".replace("<small>", "</b><small>", 1)
            .replace("</small></b>", "</small>"),
            interval(row.stream),
            _difference(row, lower_is_better(panel)),
            f"{row.diverged} of {row.n}" if row.diverged else "0",
        ]
        for row in rows
    ]  # fmt: skip
    better = f" {known.better.capitalize()} is better." if known.better else ""
    caption = (
        f"<b>{text(known.title)}.</b>{better} Mean over runs, with its 95 % bootstrap "
        "interval below. Best task: of the mean curve, so chance favours it. Against "
        f"{base}: mean difference of runs with the same seed, which share tasks and "
        "initial weights; in colour where the interval leaves out 0."
    )
    if any(row.arm.oracle for row in rows):
        caption += " Oracle: knows what the stream does not offer."
    return _table(columns, cells, caption)


def _difference(row: Row, lower: bool) -> str:
    if not row.baseline:
        return "–"
    shown = interval(row.difference, signed=True)
    low, high = row.difference.low, row.difference.high
    if not (low > 0 or high < 0):
        return shown
    good = (low > 0) != lower
    return f'<td class="{"better" if good else "worse"}">{shown}</td>'


def cost(rows: list[Row], strokes: dict[str, Stroke]) -> str:
    """What each arm took; nothing where no group recorded its cost."""
    if all(value is None for row in rows for value in row.cost.values()):
        return ""
    columns = [
        ("Arm", ""), ("Step", "FLOPs"), ("Step", "bytes moved"), ("Parameters", ""),
        ("Learner state", "bytes"), ("Speed", "lane-steps / s"), ("Wall time", "its lanes"),
        ("Compiling", "its groups"),
    ]  # fmt: skip
    keys = ("flops_per_step", "bytes_per_step", "parameters", "learner_bytes")
    cells = [
        [arm_name(row, strokes)]
        + [quantity(row.cost[k]) for k in (*keys, "lane_steps_per_second")]
        + [duration(row.cost[k]) for k in ("wall_seconds", "compile_seconds")]
        for row in rows
    ]
    caption = (
        "<b>Cost.</b> FLOPs and bytes of one optimisation step of one lane, from XLA's "
        "cost analysis of the compiled step. Learner state: parameters, optimiser and "
        "all else that a method carries. Wall time: the arm's share, by lanes, of its "
        "groups' time; arms of one group are compiled together."
    )
    return _table(columns, cells, caption)


def duration(seconds: float | None) -> str:
    """12.3 s, 4 min 05 s, 2 h 10 min."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


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
        ("Better than its baseline", "probability"),
    ]  # fmt: skip
    caption = (
        f"<b>{text(labels.label(metric).title)} over the last tenth of the tasks, all "
        "benchmarks together.</b> IQM: mean of the middle half of the runs. 95 % "
        "bootstrap intervals, runs resampled within each benchmark. Probability that a "
        "run is better than one of the backprop baseline, ties one half, mean over "
        "benchmarks (Agarwal et al. 2021)."
    )
    return '<h2 id="across">All benchmarks</h2>' + _table(columns, rows, caption)


def _across(name: str, panels: list[Panel]) -> list[str]:
    ours, theirs = [], []
    for panel in panels:
        arm = next(a for a in panel.arms if a.label == name)
        base = baseline(panel, arm.study)
        sign = -1.0 if lower_is_better(panel) else 1.0
        ours.append(_finite(sign * final_scores(panel, arm)))
        if base is not None and base is not arm:
            theirs.append(_finite(sign * final_scores(panel, base)))
    sign = -1.0 if lower_is_better(panels[0]) else 1.0
    won = "–"
    complete = len(theirs) == len(ours) and all(len(s) for s in (*ours, *theirs))
    if complete:
        won = interval(stats.probability_of_improvement(ours, theirs))
    signed = [sign * scores for scores in ours]
    return [
        text(name),
        str(len(panels)),
        interval(stats.bootstrap(signed, stats.iqm)),
        interval(stats.bootstrap(signed)),
        won,
    ]


def _finite(scores: stats.Floats) -> stats.Floats:
    return scores[scores == scores]


def ledger(groups: list[dict[str, Any]]) -> str:
    """One row per compiled group."""
    heading = '<h2 id="compute">Compute ledger</h2>'
    if not groups:
        return f"{heading}<p>No group has recorded its cost yet.</p>"
    columns = [
        ("Group", ""), ("Arms", ""), ("Lanes", "width"), ("Strategy", ""), ("Device", ""),
        ("Step", "FLOPs"), ("Speed", "lane-steps / s"), ("Wall time", ""),
        ("Compiling", ""),
    ]  # fmt: skip
    rows = [
        [
            f"<code>{text(str(group['group'])[:12])}</code>",
            f'<td class="left">{text(group["arms"])}</td>',
            text(_dash(group["lanes"])) + f"<small>{text(_dash(group['lane_width']))}"
            "</small>",
            text(_dash(group["strategy"])),
            f'<td class="wrap">{text(_dash(group["device"]))}</td>',
            quantity(group["flops_per_step"]),
            quantity(group["lane_steps_per_second"]),
            duration(group["wall_seconds"]),
            duration(group["compile_seconds"]),
        ]
        for group in groups
    ]
    wall = [g["wall_seconds"] for g in groups if g["wall_seconds"] is not None]
    caption = (
        "<b>Compiled groups.</b> A group is one program: runs that differ in seeds and "
        f"traced hyper-parameters only. All groups together: {duration(sum(wall))} of "
        "wall time."
        if wall
        else "<b>Compiled groups.</b>"
    )
    return heading + _table(columns, rows, caption)


def _dash(value: Any) -> Any:
    return "–" if value is None else value

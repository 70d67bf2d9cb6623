"""The page's tables of costs: one benchmark's arms, and the compiled groups."""

import math
from typing import Any

from cl_bench.report.html_tables import arm_name, table, text
from cl_bench.report.palette import Stroke
from cl_bench.report.summary import Row, quantity


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
    return table(columns, cells, caption)


def duration(seconds: float | None) -> str:
    """12.3 s, 4 min 05 s, 2 h 10 min."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def ledger(groups: list[dict[str, Any]]) -> str:
    """One row per compiled group."""
    heading = '<h2 id="compute">Compute ledger</h2>'
    if not groups:
        return f"{heading}<p>No group has recorded its cost yet.</p>"
    columns = [
        ("Arms", ""), ("Group", ""), ("Lanes", "width"), ("Strategy", ""), ("Device", ""),
        ("Step", "FLOPs"), ("Speed", "lane-steps / s"), ("Wall time", ""),
        ("Compiling", ""),
    ]  # fmt: skip
    rows = [
        [
            text(group["arms"]),
            f'<td class="wrap"><code>{text(group["group"])}</code></td>',
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
    return heading + table(columns, rows, caption)


def _dash(value: Any) -> Any:
    return "–" if value is None else value

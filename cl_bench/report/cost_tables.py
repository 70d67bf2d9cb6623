"""The page's tables of costs: one benchmark's arms, and the compiled groups."""

import math
from typing import Any

from cl_bench.report import charges
from cl_bench.report.html_tables import arm_name, table, text
from cl_bench.report.palette import Stroke
from cl_bench.report.summary import Row, quantity


def cost(rows: list[Row], strokes: dict[str, Stroke]) -> str:
    """What each arm took; nothing where no group recorded its cost."""
    if all(value is None for row in rows for value in row.cost.values()):
        return ""
    columns = [
        ("Arm", ""), ("Step alone", "FLOPs"), ("Hooks", "FLOPs a task"),
        *reversed(charges.COLUMNS), ("Learner state", "bytes"), ("Parameters", ""),
        ("Step alone", "bytes moved"), ("Speed", "lane-steps / s"),
        ("Wall time", "its lanes"), ("Compiling", "its groups"),
    ]  # fmt: skip
    flops = ("flops_per_step", "flops_per_task", *reversed(charges.CHARGED))
    others = ("parameters", "bytes_per_step", "lane_steps_per_second")
    cells = [
        [arm_name(row, strokes)]
        + [quantity(row.cost[k]) for k in flops]
        + [_state(row)]
        + [quantity(row.cost[k]) for k in others]
        + [duration(row.cost[k]) for k in ("wall_seconds", "compile_seconds")]
        for row in rows
    ]
    caption = (
        "<b>Cost.</b> Of one lane, in its last task, where a method does most: FLOPs of "
        "an optimisation step and, once a task, of what the method does at a task's "
        "start and end and at its segments' ends (Fisher, merging, pruning); then both, "
        "the second spread over the task's steps. Loops count as often as they turn, a "
        "condition as if it always took its dearest branch, metrics not at all. Bytes "
        "moved: XLA's estimate, the body of a loop once. Learner state: the network, "
        "the optimiser and all else that a method carries; of anchors, weight is the "
        "importance (Fisher). Wall time: the arm's share, by lanes, of its groups' "
        "time; arms of one group are compiled together."
    )
    if unsure := [row.arm.label for row in rows if row.cost["loops_counted_once"]]:
        caption += (
            " Loops whose turns follow the data count once, however often they turn: in "
            f"{text(', '.join(unsure))}."
        )
    charged = [row.cost["charged_flops_per_step"] is not None for row in rows]
    if not all(charged):
        caption += (
            " Rows without FLOPs of the hooks are of an earlier version, whose FLOPs of "
            "a step are XLA's, the body of a loop once."
        )
    return table(columns, cells, caption)


def _state(row: Row) -> str:
    """The learner's bytes, and what they are for, the most first, in small print."""
    kinds = sorted(row.kinds.items(), key=lambda kind: -kind[1])
    parts = [f"{text(name)} {quantity(size)}" for name, size in kinds]
    small = f"<small>{'<br>'.join(parts)}</small>" if len(parts) > 1 else ""
    return quantity(row.cost["learner_bytes"]) + small


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
    compiling = [g["compile_seconds"] or 0.0 for g in groups]
    caption = (
        "<b>Compiled groups.</b> A group is one program: runs that differ in seeds and "
        f"traced hyper-parameters only. All groups together: {duration(sum(wall))} of "
        f"wall time, and {duration(sum(compiling))} of compilation before it."
        if wall
        else "<b>Compiled groups.</b>"
    )
    return heading + table(columns, rows, caption)


def _dash(value: Any) -> Any:
    return "–" if value is None else value

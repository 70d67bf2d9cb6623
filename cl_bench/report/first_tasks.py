"""The first tasks of a long study, which blocks of tasks would average away."""

import html

import numpy as np

from cl_bench.report import labels
from cl_bench.report.blocks import TASK, Blocks
from cl_bench.report.panels import Arm, Panel
from cl_bench.report.plasticity import FIRST_TASKS
from cl_bench.stats import Band


def of(panel: Panel, arms: dict[str, Arm]) -> tuple[Panel, dict[str, Arm]] | None:
    """Panel and arms with the score's first tasks alone, to be drawn as any others are.

    None where the other figures show every task already.
    """
    if panel.score is None or all(arm.blocks.size == 1 for arm in arms.values()):
        return None
    points = Blocks(1, np.arange(1.0, FIRST_TASKS + 1))
    early = {}
    for name, arm in arms.items():
        mean, low, high, n = arm.bands[panel.score]
        band = Band(
            mean[:FIRST_TASKS], low[:FIRST_TASKS], high[:FIRST_TASKS], n[:FIRST_TASKS]
        )
        early[name] = arm._replace(blocks=points, drawn={panel.score: band})
    return panel._replace(axis=TASK, num_tasks=FIRST_TASKS), early


def caption(early: Panel) -> str:
    """What the figure shows, as HTML."""
    title = html.escape(labels.axis_title(early.score or ""))
    return f"<b>{title}, the first {early.num_tasks} tasks</b>, every task a point."

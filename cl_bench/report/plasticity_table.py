"""The page's table of plasticity, and the same numbers as rows of a CSV."""

from typing import Any

from cl_bench.report import charges, labels
from cl_bench.report.html_tables import arm_name, interval, table, text
from cl_bench.report.palette import Stroke
from cl_bench.report.panels import Panel
from cl_bench.report.plasticity import SAMPLE
from cl_bench.report.summary import Row
from cl_bench.stats import Interval


def html(panel: Panel, rows: list[Row], strokes: dict[str, Stroke]) -> str:
    """Early tasks, late tasks and what was lost between them, for every arm."""
    unit, sampled = labels.label(panel.score or "").unit, labels.label(SAMPLE).unit
    fresh = next((r.plasticity.fresh for r in rows if r.plasticity.fresh), "")
    measured = SAMPLE in panel.metrics
    columns = [
        ("Arm", ""), ("All tasks", unit), (f"First {_most(rows)} tasks", unit),
        ("Last 10 %", unit), ("Plasticity loss", f"first {_most(rows)} − last 10 %"),
        ("First − last task", unit),
    ]  # fmt: skip
    cells = [
        [
            arm_name(row, strokes),
            interval(row.stream, unit),
            interval(row.plasticity.first, unit),
            interval(row.last, unit),
            f'<td class="main">{_signed(row.plasticity.loss, unit)}</td>',
            _signed(row.plasticity.first_to_last, unit),
        ]
        for row in rows
    ]
    if measured:
        columns.append(("Sample plasticity lost", "first − last task"))
        for cell, row in zip(cells, rows, strict=True):
            cell.append(_signed(row.plasticity.sample_loss, sampled))
    if fresh:
        columns.append(("Gap to a fresh network", "last 10 %"))
        for cell, row in zip(cells, rows, strict=True):
            cell.append(_signed(row.plasticity.gap, unit))
    columns += charges.COLUMNS
    for cell, row in zip(cells, rows, strict=True):
        cell += charges.cells(row.cost)
    return table(columns, cells, _caption(panel, rows, fresh, measured))


def _most(rows: list[Row]) -> int:
    return max(row.plasticity.first_tasks for row in rows)


def _signed(value: Interval, unit: str) -> str:
    return interval(value, unit, signed=True)


def _caption(panel: Panel, rows: list[Row], fresh: str, measured: bool) -> str:
    title = labels.label(panel.score or "").title
    caption = (
        f"<b>Plasticity.</b> {text(title)}, mean over runs with its 95 % bootstrap "
        "interval below. All tasks: the total average, by which settings are chosen "
        f"(Kumar et al. 2023). Plasticity loss: mean of the first {_most(rows)} tasks "
        "against that of the last tenth, of the same run; above 0 the runs got worse."
    )
    if min(row.plasticity.first_tasks for row in rows) < _most(rows):
        caption += (
            " An arm of few tasks has fewer first ones: all before its last tenth."
        )
    if measured:
        caption += (
            " Sample plasticity lost: the loss of plasticity of Elsayed and Mahmood "
            "(2024)."
        )
    if fresh:
        caption += (
            f" Gap: how far an arm ends behind {text(fresh)}, which learns every task "
            "with a new network, over runs with the same seed."
        )
    return caption


def csv_row(panel: Panel, row: Row) -> dict[str, Any]:
    """One arm's numbers; intervals as `name`, `name_low`, `name_high`."""
    found, score = row.plasticity, panel.score or ""
    cells: dict[str, Any] = {
        "benchmark": panel.benchmark,
        "study": row.arm.study,
        "arm": row.arm.label,
        "method": row.arm.method,
        "oracle": row.arm.oracle,
        "metric": score,
        "unit": labels.label(score).unit if score else "",
        "runs": row.n,
        "first_tasks": found.first_tasks,
        "last_tasks": row.arm.last,
        "fresh_network": found.fresh,
        "gap_pairs": found.gap_pairs,
    }
    intervals = {
        "all_tasks": row.stream,
        "first": found.first,
        "last": row.last,
        "plasticity_loss": found.loss,
        "first_minus_last_task": found.first_to_last,
        "sample_plasticity_loss": found.sample_loss,
        "gap_to_fresh_network": found.gap,
    }
    for name, value in intervals.items():
        cells |= {name: value.estimate}
        cells |= {f"{name}_low": value.low, f"{name}_high": value.high}
    return cells | charges.csv_cells(row.cost)

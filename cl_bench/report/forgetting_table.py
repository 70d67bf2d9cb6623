"""The page's table of what was remembered, and the same numbers as rows of CSVs."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from cl_bench.report import charges, forgetting, references
from cl_bench.report.forgetting import NUMBERS, Number
from cl_bench.report.html_tables import arm_name, interval, table, text
from cl_bench.report.palette import Stroke
from cl_bench.report.panels import Panel
from cl_bench.report.summary import Row

# Read in the code of each framework.
SAME_WORD = (
    ("Forgetting of a task", "first − last", "max of all rows, the last too, − last",
     "max before the last − last", "max before the last − last",
     "max of all rows, the last too, − last"),
    ("BWT", "− forgetting", "last row only", "all rows", "–", "–"),
    ("FWT", "minus initial accuracy", "minus initial accuracy",
     "nothing subtracted", "–", "–"),
)  # fmt: skip
COSTS = ("learner_bytes", "flops_per_step", *charges.CHARGED)
ANYTIME = (
    "<b>While training goes on.</b> From the accuracies at the segments' ends on the "
    "tasks learned so far. min-ACC: the lowest accuracy of a task after its own training, "
    "mean over tasks; WC-ACC weighs it against the accuracy on the last task (De Lange "
    "et al. 2023). AAA: mean over all evaluations (Caccia et al. 2022). Stability gap: "
    "how far earlier tasks fall while the next one is learned, even if they come back; "
    "lower is better."
)
FRAMEWORKS = ("Avalanche", "Mammoth", "Continuum", "FACIL", "PyCIL")


def html(panel: Panel, rows: list[Row], strokes: dict[str, Stroke]) -> str:
    """Accuracy, transfer and forgetting of every arm; '' where nobody recorded them."""
    rows = [row for row in rows if row.forgetting]
    if not rows:
        return ""
    columns, cells = _numbers(rows, strokes, "matrix")
    parts = [table(columns, cells, _caption(rows))]
    captions = {"reference": _references(panel, rows), "anytime": ANYTIME}
    for source, caption in captions.items():
        columns, cells = _numbers(rows, strokes, source)
        if len(columns) > 1 + len(charges.COLUMNS):
            parts.append(table(columns, cells, caption))
    return "".join([*parts, _same_word()])


def _numbers(
    rows: list[Row], strokes: dict[str, Stroke], source: str
) -> tuple[list[tuple[str, str]], list[list[str]]]:
    """Columns and cells of those numbers that any arm has, and what it is charged."""
    shown = [
        name
        for name, number in NUMBERS.items()
        if number.in_page
        and _source(number) == source
        and any(_there(row, name) for row in rows)
    ]
    columns = [("Arm", "")] + [(NUMBERS[n].title, NUMBERS[n].note) for n in shown]
    cells = [
        [arm_name(row, strokes)]
        + [_cell(row, name) for name in shown]
        + charges.cells(row.cost)
        for row in rows
    ]
    return columns + charges.COLUMNS, cells


def _source(number: Number) -> str:
    """What a number needs: each has a table of its own."""
    if number.reference:
        return "reference"
    return "anytime" if number.anytime else "matrix"


def _there(row: Row, name: str) -> bool:
    return bool(np.isfinite(row.forgetting[name].estimate))


def _cell(row: Row, name: str) -> str:
    shown = interval(row.forgetting[name], "%", signed=NUMBERS[name].signed)
    return f'<td class="main">{shown}</td>' if name == "average_accuracy" else shown


def _caption(rows: list[Row]) -> str:
    caption = (
        "<b>Remembering.</b> In percent, mean over runs with its 95 % bootstrap interval "
        "below. R<sub>ij</sub>: test accuracy on task j after training on task i, of T "
        "tasks; b<sub>j</sub>: that of the untrained network. Of forgetting lower is "
        "better, of all else higher. ACC = learning accuracy + (T − 1)/T · BWT. A "
        "diverged run counts as accuracy 0 from then on, also where that leaves little "
        f"to forget.{charges.NOTE} "
    )
    if reasons := _reasons(rows):
        caption += f"No FWT: {text('; '.join(reasons))}. "
    return caption + "tables/forgetting.csv has more numbers, all by name."


def _references(panel: Panel, rows: list[Row]) -> str:
    caption = (
        "<b>Against what could have been learned.</b> In percent; differences and "
        "ratios are of runs with the same seed. Intransigence, of either kind: lower is "
        "better, below 0 the arm learned more than its reference."
    )
    for kind, meaning in references.MEANINGS.items():
        if names := references.names(kind, panel, [row.arm for row in rows]):
            caption += " " + meaning.format(text(", ".join(names)))
    return caption


def _reasons(rows: list[Row]) -> list[str]:
    found = [forgetting.no_forward_transfer(row.arm) for row in rows]
    return [reason for reason in dict.fromkeys(found) if reason]


def _same_word() -> str:
    """What other frameworks print under the names of this table."""
    columns = [("", "")] + [(name, "") for name in FRAMEWORKS]
    cells = [[f'<td class="left">{cell}</td>' for cell in row] for row in SAME_WORD]
    for row, (name, *_) in zip(cells, SAME_WORD, strict=True):
        row[0] = name
    caption = "What each framework's code computes under that name."
    return (
        "<details><summary>Same word, different number: forgetting and transfer in "
        f"other frameworks</summary>{table(columns, cells, caption)}</details>"
    )


def csv_row(panel: Panel, row: Row) -> dict[str, Any]:
    """One arm's numbers in percent; intervals as `name`, `name_low`, `name_high`."""
    cells: dict[str, Any] = {
        "benchmark": panel.benchmark,
        "study": row.arm.study,
        "arm": row.arm.label,
        "method": row.arm.method,
        "oracle": row.arm.oracle,
        "unit": "%",
        "runs": row.n,
        "no_forward_transfer": forgetting.no_forward_transfer(row.arm),
    }
    for kind in references.KINDS:
        cells[f"{kind}_reference"] = ", ".join(references.names(kind, panel, [row.arm]))
    for name, value in row.forgetting.items():
        cells |= {name: value.estimate}
        cells |= {f"{name}_low": value.low, f"{name}_high": value.high}
    return cells | {name: row.cost[name] for name in COSTS}


def matrix_rows(panels: list[Panel]) -> Iterator[dict[str, Any]]:
    """Every run's accuracy in percent on every task after every task, from 1.

    `after` = 0 is the untrained network.
    """
    for panel in panels:
        for arm in panel.arms:
            if arm.accuracies is None:
                continue
            initial = arm.accuracies.initial[:, None, :]
            both = np.concatenate([initial, arm.accuracies.matrix], axis=1)
            for r, after, j in zip(*np.nonzero(np.isfinite(both)), strict=True):
                yield {
                    "benchmark": panel.benchmark,
                    "study": arm.study,
                    "arm": arm.label,
                    "seed": arm.runs[r].seed,
                    "after": int(after),
                    "task": int(j) + 1,
                    "accuracy": 100.0 * both[r, after, j],
                }

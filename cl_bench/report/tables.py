"""The report's numbers as CSV: summary, plasticity, forgetting, pairs, curves, costs.

Needs no extra.
"""

import csv
import io
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cl_bench.atomic import replacing
from cl_bench.report import (
    charges,
    forgetting_table,
    labels,
    plasticity_table,
    trials,
)
from cl_bench.report.panels import Panel
from cl_bench.report.summary import COST, Row, cost_of
from cl_bench.report.trials import Trials
from cl_bench.stats import Interval

INTERVALS = ("stream", "first", "best", "last", "difference")
LEDGER = ("lanes", "lane_width", "strategy", "device")


def write(
    folder: Path, panels: list[Panel], rows: list[list[Row]], groups: list[dict]
) -> list[Path]:
    """Writes summary, plasticity, curves and cost.csv into `folder`, whole or not at all.

    Where the accuracy matrix was recorded, forgetting.csv and accuracy_matrix.csv too,
    task_pairs.csv where pollution or similarity was; trials.csv where a method has
    several settings.
    Tasks are counted from 1, values are in the unit of column `unit`, an empty cell is
    a number that there is not (the interval of a single run).
    """
    folder.mkdir(parents=True, exist_ok=True)
    both = list(zip(panels, rows, strict=True))
    summary = [_summary_row(p, row) for p, found in both for row in found]
    files: dict[str, Iterable[dict[str, Any]]] = {
        "summary.csv": summary,
        "plasticity.csv": [plasticity_table.csv_row(p, r) for p, f in both for r in f],
        "curves.csv": _curves(panels),
        "cost.csv": groups,
    }
    if any(row.forgetting for row in itertools.chain(*rows)):
        files["forgetting.csv"] = [
            forgetting_table.csv_row(p, r) for p, f in both for r in f if r.forgetting
        ]
        files["accuracy_matrix.csv"] = forgetting_table.matrix_rows(panels)
    if any(arm.pairs for panel in panels for arm in panel.arms):
        files["task_pairs.csv"] = _task_pairs(panels)
    tried = [(panel, trials.of(panel)) for panel in panels]
    if any(found for _, found in tried):
        files["trials.csv"] = _trials(tried)
    for name, content in files.items():
        _write(folder / name, content)
    return [folder / name for name in files]


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with replacing(path) as raw:
        text = io.TextIOWrapper(raw, encoding="utf-8", newline="")
        writer = None
        for row in rows:
            if writer is None:
                writer = csv.DictWriter(text, list(row), lineterminator="\n")
                writer.writeheader()
            writer.writerow({k: _cell(v) for k, v in row.items()})
        text.detach()  # flushed, and left open for `replacing`


def _cell(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return f"{value:.8g}" if np.isfinite(value) else ""
    return "" if value is None else value


def _bounds(name: str, interval: Interval) -> dict[str, float]:
    return {
        name: interval.estimate,
        f"{name}_low": interval.low,
        f"{name}_high": interval.high,
    }


def _summary_row(panel: Panel, row: Row) -> dict[str, Any]:
    arm, score = row.arm, panel.score or ""
    found: dict[str, Any] = {
        "benchmark": panel.benchmark,
        "study": arm.study,
        "arm": arm.label,
        "method": arm.method,
        "oracle": arm.oracle,
        "metric": score,
        "unit": labels.label(score).unit if score else "",
        "runs": row.n,
        "diverged": row.diverged,
        "unfinished": row.unfinished,
        "best_task": row.best_task or None,
        "baseline": row.baseline,
        "pairs": row.pairs,
    }
    for name in INTERVALS:
        found |= _bounds(name, getattr(row, name))
    return found | row.cost


def _curves(panels: list[Panel]) -> Iterator[dict[str, Any]]:
    """Every task of every mean curve; nothing is binned here."""
    for panel in panels:
        for arm in panel.arms:
            for metric, band in arm.bands.items():
                for task in np.nonzero(band.n)[0]:
                    yield {
                        "benchmark": panel.benchmark,
                        "study": arm.study,
                        "arm": arm.label,
                        "metric": metric,
                        "unit": labels.label(metric).unit,
                        "task": int(task) + 1,
                        "runs": int(band.n[task]),
                        "mean": band.estimate[task],
                        "low": band.low[task],
                        "high": band.high[task],
                    }


def _task_pairs(panels: list[Panel]) -> Iterator[dict[str, Any]]:
    """Every run's numbers of task pairs, as recorded; tasks from 1.

    Without a layer it is the whole network's; 'q05' is a quantile over its neurons.
    """
    for panel in panels:
        for arm in panel.arms:
            for family, kinds in arm.pairs.items():
                for name, values in kinds.items():
                    kind, layer, quantile = (*name.split("/"), "", "")[:3]
                    for r, i, j in zip(*np.nonzero(np.isfinite(values)), strict=True):
                        yield {
                            "benchmark": panel.benchmark,
                            "study": arm.study,
                            "arm": arm.label,
                            "seed": arm.runs[r].seed,
                            "measure": f"{family}_{kind}",
                            "layer": layer,
                            "quantile": quantile,
                            "task_i": int(i) + 1,
                            "task_j": int(j) + 1,
                            "value": values[r, i, j],
                        }


def _trials(tried: list[tuple[Panel, list[Trials]]]) -> Iterator[dict[str, Any]]:
    """The expected score of each method after 1, 2, ... trials of its settings."""
    for panel, found in tried:
        for one in found:
            for i in range(one.settings):
                yield {
                    "benchmark": panel.benchmark,
                    "study": one.study,
                    "method": one.method,
                    "metric": panel.score,
                    "unit": labels.label(panel.score or "").unit,
                    "settings": one.settings,
                    "trials": i + 1,
                    "runs": int(one.score.n[i]),
                    "mean": one.score.estimate[i],
                    "low": one.score.low[i],
                    "high": one.score.high[i],
                    **charges.csv_cells(one.charged),
                }


def ledger(panels: list[Panel]) -> list[dict[str, Any]]:
    """One row per compiled group: its arms, lanes, speed and cost."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    arms: dict[tuple[str, str], list[str]] = {}
    for panel in panels:
        for arm in panel.arms:
            for key, group in arm.groups.items():
                groups[arm.study, key] = group
                arms.setdefault((arm.study, key), []).append(arm.label)
    return [
        {"study": key[0], "group": key[1], "arms": "; ".join(dict.fromkeys(arms[key]))}
        | {name: group.get(name) for name in LEDGER}
        | {name: cost_of(group, name) for name in COST}
        | {"learner_bytes_by_kind": _by_kind(group)}
        for key, group in groups.items()
    ]


def _by_kind(group: dict[str, Any]) -> str:
    """'network 70440; memory 1280', in bytes."""
    found = group.get("learner_bytes_by_kind") or {}
    return "; ".join(f"{name} {size}" for name, size in found.items())

"""The numbers of the summary: scores, comparisons, costs, and the key reading."""

from typing import Any, NamedTuple

import numpy as np

from cl_bench import stats
from cl_bench.report import forgetting, labels, plasticity
from cl_bench.report.panels import Arm, Panel
from cl_bench.report.plasticity import FIRST_TASKS, Plasticity
from cl_bench.report.scores import (
    NOTHING,
    baseline,
    by_seed,
    final_scores,
    interval_of,
    lower_is_better,
    mean_over,
)
from cl_bench.stats import Interval

FEW = 5  # runs below which a percentile bootstrap is known to be too narrow
COST = (
    "flops_per_step", "flops_per_task", "charged_flops_per_step", "loops_counted_once",
    "bytes_per_step", "parameters", "learner_bytes", "bytes_beyond_network",
    "lane_steps_per_second", "wall_seconds", "compile_seconds",
)  # fmt: skip


class Row(NamedTuple):
    """One arm of the summary; intervals in the metric's shown unit (%)."""

    arm: Arm
    n: int
    diverged: int
    unfinished: int
    stream: Interval  # mean over all tasks
    first: Interval  # first task
    best: Interval  # best task of the mean curve
    best_task: int  # counted from 1; 0 = none
    last: Interval  # mean over the last tenth of the tasks
    baseline: str  # label of the arm it is compared with, '' = itself or none
    difference: Interval  # of `last`, paired by seed
    pairs: int
    cost: dict[str, float | None]
    kinds: dict[str, int]  # bytes of each thing that the learner carries
    plasticity: Plasticity
    forgetting: dict[str, Interval]  # of the accuracy matrix, {} where not recorded


def summarise(panel: Panel, first_tasks: int = FIRST_TASKS) -> list[Row]:
    """One row per arm, in the panel's order; `first_tasks` is of `plasticity.of`."""
    baselines = {study: baseline(panel, study) for study in _studies(panel)}
    return [
        _row(panel, arm, baselines[arm.study], plasticity.of(panel, arm, first_tasks))
        for arm in panel.arms
    ]


def _studies(panel: Panel) -> list[str]:
    return list(dict.fromkeys(arm.study for arm in panel.arms))


def _row(panel: Panel, arm: Arm, base: Arm | None, plastic: Plasticity) -> Row:
    at, peak = _best_task(panel, arm)
    last = final_scores(panel, arm)
    pairs = np.array([])
    if base is not None and base is not arm:
        pairs = stats.paired_differences(
            by_seed(arm, last), by_seed(base, final_scores(panel, base))
        )
    compared = base is not None and base is not arm
    return Row(
        arm=arm,
        n=len(arm.runs),
        diverged=int(arm.diverged.sum()),
        unfinished=_unfinished(panel, arm),
        stream=interval_of(mean_over(panel, arm, slice(None))),
        first=interval_of(mean_over(panel, arm, slice(0, 1))),
        best=peak,
        best_task=at,
        last=interval_of(last),
        baseline=base.label if base is not None and compared else "",
        difference=interval_of(pairs),
        pairs=len(pairs),
        cost=cost(arm),
        kinds=kinds(arm),
        plasticity=plastic,
        forgetting=forgetting.of(panel, arm),
    )


def _unfinished(panel: Panel, arm: Arm) -> int:
    """Runs without a score at the last task of their stream."""
    if panel.score is None or arm.num_tasks > arm.scores.shape[1]:
        return len(arm.runs) if panel.score else 0
    return int(np.isnan(arm.scores[:, arm.num_tasks - 1]).sum())


def _best_task(panel: Panel, arm: Arm) -> tuple[int, Interval]:
    if panel.score is None:
        return 0, NOTHING
    band = arm.bands[panel.score]
    if not np.isfinite(band.estimate).any():
        return 0, NOTHING
    pick = np.nanargmin if lower_is_better(panel) else np.nanargmax
    at = int(pick(band.estimate))
    return at + 1, Interval(
        float(band.estimate[at]), float(band.low[at]), float(band.high[at])
    )


def cost(arm: Arm) -> dict[str, float | None]:
    """What the arm took: largest of its groups; its lanes' share of their wall time."""
    found: dict[str, float | None] = {}
    for name in COST:
        values = [v for g in arm.groups.values() if (v := cost_of(g, name)) is not None]
        found[name] = max(values, default=None)
    shares = [_wall_share(arm, key, group) for key, group in arm.groups.items()]
    known = [s for s in shares if s is not None]
    found["wall_seconds"] = sum(known) if known else None
    return found


def kinds(arm: Arm) -> dict[str, int]:
    """Bytes by kind of the arm's largest group; {} where none recorded them."""
    found = [group.get("learner_bytes_by_kind") or {} for group in arm.groups.values()]
    return max(found, key=lambda one: sum(one.values()), default={})


def _wall_share(arm: Arm, key: str, group: dict[str, Any]) -> float | None:
    wall, lanes = cost_of(group, "wall_seconds"), group.get("lanes")
    if wall is None or not isinstance(lanes, int) or lanes < 1:
        return wall
    here = sum(run.group == key for run in arm.runs)
    return wall * min(1.0, here / lanes)


def cost_of(group: dict[str, Any], name: str) -> float | None:
    """One number of a group.json; None where it was not measured."""
    value = group.get(name)
    return float(value) if isinstance(value, int | float) else None


def key_reading(panel: Panel, rows: list[Row]) -> list[tuple[str, str]]:
    """(arm, what it does) for each arm: first task, peak, last tenth."""
    return [(row.arm.label, _reading(panel, row)) for row in rows]


def _reading(panel: Panel, row: Row) -> str:
    unit = labels.label(panel.score).unit if panel.score else ""
    space = "\N{NO-BREAK SPACE}" if unit else ""
    if not np.isfinite(row.last.estimate):
        return "has not reached the last tasks yet"
    first, peak, last = (
        f"{number(v.estimate, unit)}{space}{unit}"
        for v in (row.first, row.best, row.last)
    )
    lost = abs(row.best.estimate - row.last.estimate)
    points = " points" if unit == "%" else ""
    lower = lower_is_better(panel)
    turns, word = ("is lowest at", "above") if lower else ("peaks at", "below")
    text = f"starts at {first}, {turns} {peak} (task {row.best_task}) and ends at "
    text += f"{last}, {number(lost, unit)}{points} {word} its best"
    if row.diverged:
        verb = "counts" if row.diverged == 1 else "count"
        text += f" ({row.diverged} of {row.n} runs diverged and {verb} as the worst)"
    return text


def number(value: float, unit: str = "") -> str:
    """Percentages with one decimal place, everything else with three figures."""
    if not np.isfinite(value):
        return "–"
    if unit.startswith("%"):
        text = f"{value:.1f}"
        text = "0.0" if text == "-0.0" else text
    else:
        text = f"{value:,.0f}" if 1_000 <= abs(value) < 1e6 else f"{value:.3g}"
    return text.replace("-", "−") if "e" not in text else text


def quantity(value: float | None) -> str:
    """A large count with a prefix: 51.2 k, 1.34 M."""
    if value is None or not np.isfinite(value):
        return "–"
    for size, prefix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{prefix}"
    return f"{value:.3g}"

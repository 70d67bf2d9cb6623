"""Hyper-parameter sweeps: which settings of a method vary, and its score at each."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from cl_bench.report.panels import Arm, Panel, show, varied
from cl_bench.report.scores import best, families, final_scores
from cl_bench.stats import Interval, bootstrap

# A setting that only follows from another: shorter tasks, so more of them.
FOLLOWS = {"stream.num_tasks": "stream.steps_per_task"}


class Point(NamedTuple):
    """One arm of a sweep."""

    value: Any  # of the swept setting
    text: str
    others: str  # what else differs inside the sweep, '' = nothing
    score: Interval  # mean over the last tenth of the tasks
    arm: Arm


class Sweep(NamedTuple):
    """One setting of one method on one benchmark; a small multiple."""

    study: str
    method: str  # its family's name
    setting: str
    points: list[Point]  # by value
    best_arms: list[tuple[str, Arm]]  # (value as text, best arm at it), by value
    scale: str  # 'log', 'linear', or 'category'


def sweeps(panel: Panel) -> list[Sweep]:
    """A small multiple for every setting that has several values, all else equal."""
    if panel.score is None:
        return []
    found = [
        _sweep(panel, study, method, setting, arms)
        for (study, method), arms in families(panel.arms).items()
        for setting in _chosen(arms)
    ]
    return [sweep for sweep in found if _is_swept(sweep)]


def _chosen(arms: list[Arm]) -> list[str]:
    """The settings that vary among the arms, less those that follow from another."""
    keys = varied([arm.settings for arm in arms])
    return [k for k in keys if not (k in FOLLOWS and _follows(k, FOLLOWS[k], arms))]


def _follows(setting: str, leader: str, arms: list[Arm]) -> bool:
    """Whether the leader's value tells the setting's in every arm."""
    both = {(show(a.settings.get(leader)), show(a.settings.get(setting))) for a in arms}
    return len(both) == len({value for value, _ in both}) > 1


def _is_swept(sweep: Sweep) -> bool:
    """Whether the setting ever varies alone; otherwise its effect cannot be told."""
    values: dict[str, set[str]] = {}
    for point in sweep.points:
        values.setdefault(point.others, set()).add(point.text)
    return any(len(texts) > 1 for texts in values.values())


def _sweep(
    panel: Panel, study: str, method: str, setting: str, arms: list[Arm]
) -> Sweep:
    rest = [k for k in _chosen(arms) if k != setting]
    points = []
    for arm in arms:
        scores = final_scores(panel, arm)
        value = arm.settings.get(setting)
        others = ", ".join(f"{short(k)}={show(arm.settings.get(k))}" for k in rest)
        reached = bootstrap(scores[np.isfinite(scores)])
        points.append(Point(value, show(value), others, reached, arm))
    points.sort(key=_order(points))
    texts = dict.fromkeys(p.text for p in points)
    picked = [(t, best(panel, [p.arm for p in points if p.text == t])) for t in texts]
    best_arms = [(text, arm) for text, arm in picked if arm is not None]
    scale = _scale([p.value for p in points])
    return Sweep(study, method, setting, points, best_arms, scale)


def _order(points: list[Point]) -> Callable[[Point], Any]:
    """By number, by the numbers of a list (widths), or by text."""
    if all(isinstance(p.value, int | float) for p in points):
        return lambda p: float(p.value)
    lists = [p.value for p in points if isinstance(p.value, list | tuple)]
    numbers = all(isinstance(x, int | float) for value in lists for x in value)
    if len(lists) == len(points) and numbers:
        return lambda p: tuple(p.value)
    return lambda p: p.text


def short(setting: str) -> str:
    """'network.widths' is called 'widths'."""
    return setting.rpartition(".")[2]


def _scale(values: list[Any]) -> str:
    numbers = [v for v in values if isinstance(v, int | float)]
    if len(numbers) < len(values) or any(isinstance(v, bool) for v in values):
        return "category"
    if not np.all(np.isfinite(numbers)):
        return "category"
    if min(numbers) > 0:
        return "log" if max(numbers) / min(numbers) >= 8 else "linear"
    spread = sorted({abs(v) for v in numbers if v})
    # 0 beside values of several magnitudes has no place on either axis.
    return "category" if spread and spread[-1] / spread[0] >= 8 else "linear"


def shown(panel: Panel, most: int = 10) -> tuple[list[Arm], bool]:
    """The arms of the main figures: all, or each family's best one where too many."""
    if len(panel.arms) <= most:
        return panel.arms, False
    picked = [best(panel, arms) for arms in families(panel.arms).values()]
    return [arm for arm in picked if arm is not None], True

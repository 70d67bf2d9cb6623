"""Hyper-parameter sweeps: which settings of a method vary, and its score at each."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from cl_bench.report.panels import Arm, Panel, show, varied
from cl_bench.report.scores import baseline, best, families, final_scores, lines
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
    return [
        _sweep(panel, study, method, setting, compared)
        for (study, method), arms in families(panel.arms).items()
        for setting in _chosen(arms)
        if (compared := _comparable(setting, arms))
    ]


def _chosen(arms: list[Arm]) -> list[str]:
    """The settings that vary among the arms, less those that follow from another."""
    keys = varied([arm.settings for arm in arms])
    return [k for k in keys if not (k in FOLLOWS and _follows(k, FOLLOWS[k], arms))]


def _follows(setting: str, leader: str, arms: list[Arm]) -> bool:
    """Whether the leader's value tells the setting's in every arm."""
    both = {(show(a.settings.get(leader)), show(a.settings.get(setting))) for a in arms}
    return len(both) == len({value for value, _ in both}) > 1


def _comparable(setting: str, arms: list[Arm]) -> list[Arm]:
    """The arms beside which there is one that differs in this setting alone.

    Of the others its effect cannot be told: a linear network is no activation.
    """
    rest = [key for key in _chosen(arms) if key != setting]
    values: dict[tuple[str, ...], set[str]] = {}
    for arm in arms:
        own = show(arm.settings.get(setting))
        values.setdefault(_texts(arm, rest), set()).add(own)
    return [arm for arm in arms if len(values[_texts(arm, rest)]) > 1]


def _texts(arm: Arm, settings: list[str]) -> tuple[str, ...]:
    return tuple(show(arm.settings.get(key)) for key in settings)


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


def shown(panel: Panel, most: int = 10, most_lines: int = 20) -> tuple[list[Arm], bool]:
    """The arms of the main figures, and whether these are not all.

    Of more than `most` arms the best of each line of the experiment's sweep, and where
    those are too many as well, of each method; always those that others face.
    """
    if len(panel.arms) <= most:
        return panel.arms, False
    groups = lines(panel.arms)
    groups = groups if len(groups) <= most_lines else families(panel.arms)
    picked = [best(panel, arms) for arms in groups.values()]
    picked += [baseline(panel, study) for study in {a.study for a in panel.arms}]
    kept = {arm.label for arm in picked if arm is not None}
    arms = [arm for arm in panel.arms if arm.label in kept]
    return arms, len(arms) < len(panel.arms)

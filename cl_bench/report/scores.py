"""The score of each run over some of its tasks, and the arms that others face."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from cl_bench import stats
from cl_bench.report import labels
from cl_bench.report.panels import ORACLE, Arm, Panel
from cl_bench.stats import Interval

# ' strength=0.01 step_size=0.1': what `cl_bench.sweeps.product` adds to a label.
_SWEPT = re.compile(r"( \w+=\S*)+$")
BASELINES = ("backprop", "linear")  # arms that others face, the first one there is
NOTHING = Interval(np.nan, np.nan, np.nan)


def baseline(panel: Panel, study: str) -> Arm | None:
    """The arm that a study's others are compared with.

    The one called 'backprop', else the one called 'linear' (a network without hidden
    units), otherwise the best one of that method; not one that was trained on all tasks
    together, where there is another. A study without one is compared with those of the
    others that have the very same stream.
    """
    own = [a for a in panel.arms if a.study == study and a.method == "backprop"]
    own = own or _elsewhere(panel, study)
    own = [a for a in own if a.training == "sequential"] or own
    for name in BASELINES:
        if named := [a for a in own if line(a) == name and not a.oracle]:
            return best(panel, named)
    return best(panel, own)


def _elsewhere(panel: Panel, study: str) -> list[Arm]:
    streams = [_stream(arm) for arm in panel.arms if arm.study == study]
    return [
        arm
        for arm in panel.arms
        if arm.method == "backprop" and all(_stream(arm) == one for one in streams)
    ]


def _stream(arm: Arm) -> dict[str, Any]:
    return {k: v for k, v in arm.settings.items() if k.startswith("stream.")}


def families(arms: list[Arm]) -> dict[tuple[str, str], list[Arm]]:
    """(study, name) -> the arms of one method that differ in settings to choose from.

    Training on all tasks together, and knowing more than the stream offers, are no such
    settings: those arms are families of their own, and the name says so.
    """

    def name(arm: Arm) -> str:
        how = "" if arm.training == "sequential" else f", {arm.training}"
        return arm.method + how + (ORACLE if arm.oracle else "")

    return _grouped(arms, name)


def line(arm: Arm) -> str:
    """The arm's name in its experiment, without the values of swept settings after it."""
    return _SWEPT.sub("", arm.runs[0].arm)


def lines(arms: list[Arm]) -> dict[tuple[str, str], list[Arm]]:
    """(study, name) -> the arms that one line of the experiment's sweep stands for."""
    return _grouped(arms, line)


def _grouped(
    arms: list[Arm], name: Callable[[Arm], str]
) -> dict[tuple[str, str], list[Arm]]:
    found: dict[tuple[str, str], list[Arm]] = {}
    for arm in arms:
        found.setdefault((arm.study, name(arm)), []).append(arm)
    return found


def best(panel: Panel, arms: list[Arm]) -> Arm | None:
    """The arm with the best mean over the last tenth of the tasks."""
    sign = -1.0 if lower_is_better(panel) else 1.0

    def quality(arm: Arm) -> float:
        value = interval_of(final_scores(panel, arm)).estimate
        return sign * value if np.isfinite(value) else -np.inf

    return max(arms, key=quality, default=None)


def lower_is_better(panel: Panel) -> bool:
    """Whether a smaller score is the better one."""
    return panel.score is not None and labels.label(panel.score).better == "lower"


def final_scores(panel: Panel, arm: Arm) -> np.ndarray:
    """[runs] mean over the last tenth of the tasks; NaN = not reached yet."""
    return mean_over(panel, arm, slice(arm.num_tasks - arm.last, arm.num_tasks))


def mean_over(panel: Panel, arm: Arm, tasks: slice) -> np.ndarray:
    """[runs] in shown unit. Every task of the window that was measured counts once."""
    window = arm.scores[:, tasks]
    n = np.isfinite(window).sum(axis=1)
    scale = labels.label(panel.score).scale if panel.score else 1.0
    with np.errstate(invalid="ignore"):
        return scale * np.nansum(window, axis=1) / np.where(n, n, np.nan)


def interval_of(scores: np.ndarray) -> Interval:
    """Mean of one number a run, with its bootstrap interval; NaN is left out."""
    reached = scores[np.isfinite(scores)]
    return stats.bootstrap(reached) if len(reached) else NOTHING


def by_seed(arm: Arm, scores: np.ndarray) -> dict[int, float]:
    """Seed -> number, for the runs that have one."""
    found = zip(arm.seeds, scores, strict=True)
    return {seed: float(score) for seed, score in found if np.isfinite(score)}

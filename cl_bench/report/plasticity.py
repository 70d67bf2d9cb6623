"""Loss of plasticity of each arm: early tasks against late ones and a fresh network."""

from typing import NamedTuple

import numpy as np

from cl_bench import stats
from cl_bench.report.panels import Arm, Panel
from cl_bench.report.scores import (
    NOTHING,
    best,
    by_seed,
    final_scores,
    interval_of,
    lower_is_better,
    mean_over,
)
from cl_bench.stats import Interval

FIRST_TASKS = 10
FRESH = "full_reset"  # the method whose network is a new one in every task
SAMPLE = "sample_plasticity"


class Plasticity(NamedTuple):
    """Losses of one arm, above 0 where it got worse; in the metric's shown unit.

    Every difference is of two numbers of one seed, and its interval is over seeds.
    """

    first_tasks: int  # k: how many tasks `first` and `loss` start from
    first: Interval  # mean over the first k tasks
    loss: Interval  # first k tasks against the last tenth
    first_to_last: Interval  # first task against the last one
    sample_loss: Interval  # sample plasticity, first task minus last; its own unit
    fresh: str  # label of the fresh-network oracle's arm, '' = itself or none
    gap: Interval  # last tenth of the tasks, the fresh network against this arm
    gap_pairs: int  # seeds that both have


def of(panel: Panel, arm: Arm, first_tasks: int = FIRST_TASKS) -> Plasticity:
    """The losses of one arm; NaN where a run has not reached what they need.

    loss = mean score of the first k tasks - mean score of the last tenth, of the same
    run. k is `first_tasks`, but at most the number of tasks before the last tenth, so
    that no task counts on both sides. sample_loss is the "loss of plasticity" of Elsayed
    and Mahmood (ICLR 2024), where the metric sample_plasticity was recorded. Signs are
    turned for a score of which lower is better.

    Raises ValueError for `first_tasks` < 1.
    """
    if first_tasks < 1:
        raise ValueError(f"first_tasks={first_tasks}: at least 1")
    sign = -1.0 if lower_is_better(panel) else 1.0
    k = min(first_tasks, arm.num_tasks - arm.last)
    first, last = mean_over(panel, arm, slice(0, k)), final_scores(panel, arm)
    end = arm.num_tasks
    one, final = (mean_over(panel, arm, slice(t - 1, t)) for t in (1, end))
    fresh, gaps = fresh_network(panel, arm.study), np.array([])
    if fresh is not None and fresh is not arm:
        theirs = by_seed(fresh, final_scores(panel, fresh))
        gaps = sign * stats.paired_differences(theirs, by_seed(arm, last))
    return Plasticity(
        first_tasks=k,
        first=interval_of(first),
        loss=interval_of(sign * (first - last)),
        first_to_last=_between_tasks(arm, sign * (one - final)),
        sample_loss=_sample_loss(arm),
        fresh=fresh.label if fresh is not None and fresh is not arm else "",
        gap=interval_of(gaps),
        gap_pairs=len(gaps),
    )


def fresh_network(panel: Panel, study: str) -> Arm | None:
    """The study's arm of a new network in every task; the best one of several."""
    own = [arm for arm in panel.arms if arm.study == study]
    return best(panel, [a for a in own if FRESH in (a.method, a.runs[0].arm)])


def _between_tasks(arm: Arm, differences: np.ndarray) -> Interval:
    """Of a stream of one task there is no first and last one."""
    return interval_of(differences) if arm.num_tasks > 1 else NOTHING


def _sample_loss(arm: Arm) -> Interval:
    curves = arm.curves.get(SAMPLE)
    if curves is None or arm.num_tasks > curves.shape[1]:
        return NOTHING
    return _between_tasks(arm, curves[:, 0] - curves[:, arm.num_tasks - 1])

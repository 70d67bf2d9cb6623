"""What an arm could have learned: other arms of its study, run for run of one seed."""

from typing import NamedTuple

import numpy as np

from cl_bench.report.panels import Arm, Panel
from cl_bench.report.plasticity import fresh_network
from cl_bench.report.scores import best
from cl_bench.stats import Floats

KINDS = ("cumulative", "joint", "single_task")
MEANINGS = {  # {}: the reference arms
    "cumulative": "a<sub>j</sub>: accuracy after task j on task j of {}, which goes "
    "on from the task before and trains on the tasks up to j together.",
    "joint": "o<sub>j</sub>: accuracy at the end on task j of {}, trained on all tasks "
    "together.",
    "single_task": "s<sub>j</sub>: accuracy after task j on task j of {}, which has a "
    "new network for every task.",
}
INDEPENDENT = "independent"  # the method of one network a task


class Reference(NamedTuple):
    """An arm and its accuracies on the tasks, [runs, T] in the order of another's runs."""

    name: str  # its label
    accuracy: Floats


def of(kind: str, panel: Panel, arm: Arm) -> Reference | None:
    """The reference of one kind for an arm; None where its study has none.

    'cumulative', 'joint': the arm that is trained so; of several the best one. None
    for an arm that is not trained task by task itself.
    'single_task': the arm of `full_reset`, otherwise of `independent`. None for itself.
    """
    single = kind == "single_task"
    other = _single_task(panel, arm) if single else _together(kind, panel, arm)
    if other is None or other.accuracies is None or arm.accuracies is None:
        return None
    matrix, tasks = other.accuracies.matrix, arm.accuracies.matrix.shape[-1]
    if matrix.shape[-1] != tasks:
        return None
    after_each = np.diagonal(matrix, axis1=1, axis2=2)
    own = matrix[:, -1] if kind == "joint" else after_each
    by_seed = dict(zip(other.seeds, own, strict=True))
    nothing = np.full(tasks, np.nan)
    found = np.stack([by_seed.get(s, nothing) for s in arm.seeds])
    return Reference(other.label, found)


def names(kind: str, panel: Panel, arms: list[Arm]) -> list[str]:
    """The references of some arms, each once."""
    found = [of(kind, panel, arm) for arm in arms]
    return list(dict.fromkeys(one.name for one in found if one is not None))


def _together(training: str, panel: Panel, arm: Arm) -> Arm | None:
    if arm.training != "sequential":
        return None
    own = [a for a in panel.arms if a.study == arm.study and a.accuracies is not None]
    return best(panel, [a for a in own if a.training == training])


def _single_task(panel: Panel, arm: Arm) -> Arm | None:
    own = [a for a in panel.arms if a.study == arm.study]
    found = fresh_network(panel, arm.study)
    if found is None:
        found = best(panel, [a for a in own if a.method == INDEPENDENT])
    return None if found is arm else found

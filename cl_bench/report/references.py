"""What an arm could have learned: other arms of its study, run for run of one seed."""

from typing import NamedTuple

import numpy as np

from cl_bench.report.panels import Arm, Panel
from cl_bench.report.plasticity import fresh_network
from cl_bench.report.scores import best
from cl_bench.stats import Floats

KINDS = ("joint", "single_task")
MEANINGS = {  # {}: the reference arms
    "joint": "a<sub>j</sub>: accuracy on task j of {}.",
    "single_task": "s<sub>j</sub>: accuracy after task j on task j of {}, which has a "
    "new network for every task.",
}
HOW = {
    "cumulative": " (trained on the tasks up to j together, after task j)",
    "joint": " (trained on all tasks together, at the end)",
}
INDEPENDENT = "independent"  # the method of one network a task


class Reference(NamedTuple):
    """An arm and its accuracies on the tasks, [runs, T] in the order of another's runs."""

    name: str  # its label, and how it was trained where that is not as the others
    accuracy: Floats


def of(kind: str, panel: Panel, arm: Arm) -> Reference | None:
    """The reference of one kind for an arm; None where its study has none.

    'joint': the arm of cumulative training, otherwise of joint training; of several
    the best one. None for an arm that is trained so itself.
    'single_task': the arm of `full_reset`, otherwise of `independent`. None for itself.
    """
    other = _joint(panel, arm) if kind == "joint" else _single_task(panel, arm)
    if other is None or other.accuracies is None or arm.accuracies is None:
        return None
    matrix, tasks = other.accuracies.matrix, arm.accuracies.matrix.shape[-1]
    if matrix.shape[-1] != tasks:
        return None
    at_end = kind == "joint" and other.training == "joint"
    own = matrix[:, -1] if at_end else np.diagonal(matrix, axis1=1, axis2=2)
    by_seed = dict(zip(other.seeds, own, strict=True))
    nothing = np.full(tasks, np.nan)
    name = other.label + (HOW[other.training] if kind == "joint" else "")
    return Reference(name, np.stack([by_seed.get(s, nothing) for s in arm.seeds]))


def names(kind: str, panel: Panel, arms: list[Arm]) -> list[str]:
    """The references of some arms, each once."""
    found = [of(kind, panel, arm) for arm in arms]
    return list(dict.fromkeys(one.name for one in found if one is not None))


def _joint(panel: Panel, arm: Arm) -> Arm | None:
    if arm.training != "sequential":
        return None
    own = [a for a in panel.arms if a.study == arm.study and a.accuracies is not None]
    cumulative = [a for a in own if a.training == "cumulative"]
    return best(panel, cumulative or [a for a in own if a.training == "joint"])


def _single_task(panel: Panel, arm: Arm) -> Arm | None:
    own = [a for a in panel.arms if a.study == arm.study]
    found = fresh_network(panel, arm.study)
    if found is None:
        found = best(panel, [a for a in own if a.method == INDEPENDENT])
    return None if found is arm else found

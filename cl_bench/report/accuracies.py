"""The accuracies of all tasks that a study's records hold, one array an arm."""

from typing import NamedTuple

import numpy as np

from cl_bench.report.studies import Study, last_in_task, numbers, per_task
from cl_bench.stats import Floats

MOST_CELLS = 24  # rows and columns of a heat-map; of a longer stream, evenly spaced
MOST_CURVES = 10


class Accuracies(NamedTuple):
    """Accuracies in [0, 1], tasks from 0; NaN = undefined, or not reached yet.

    From the task of its divergence on, a run counts as accuracy 0.
    """

    matrix: Floats  # [runs, T, T], [r, i, j]: on task j after training on task i
    initial: Floats  # [runs, T]: of the untrained network
    anytime: Floats  # [runs, N, T]: at the n-th evaluation, of tasks j <= trained[n];
    # NaN for a run that is not finished, whose lowest accuracy is not known yet
    trained: np.ndarray  # [N] int: the task that was being trained


def of(
    study: Study, rows: list[int], diverged: np.ndarray, num_tasks: int
) -> Accuracies | None:
    """The accuracies of some runs; None where the records have no matrix of them.

    `rows` are the runs' positions in `study.runs`, `diverged` is [runs, tasks] bool,
    `num_tasks` the length of their stream.
    """
    matrix = _by_task(study, "accuracy_on", rows, num_tasks)
    if not np.isfinite(matrix).any():
        return None
    reached = min(num_tasks, study.num_tasks)
    bad = np.zeros((len(rows), num_tasks), dtype=bool)
    bad[:, :reached] = diverged[:, :reached]
    initial = _by_task(study, "initial_accuracy_on", rows, num_tasks)[:, 0]
    anytime, trained = _anytime(study, rows, num_tasks)
    anytime[~np.isfinite(matrix[:, -1]).any(axis=-1)] = np.nan
    matrix = _worst(matrix, bad, np.arange(num_tasks))
    return Accuracies(matrix, initial, _worst(anytime, bad, trained), trained)


def _by_task(study: Study, metric: str, rows: list[int], num_tasks: int) -> Floats:
    """[runs, T, T]: what stands in column 'metric/j' of each task, j on the last axis."""
    found = np.full((len(rows), num_tasks, num_tasks), np.nan)
    reached = min(num_tasks, study.num_tasks)
    for j, name in per_task(study.records, metric).items():
        if j < num_tasks:
            found[:, :reached, j] = last_in_task(study, name)[rows, :reached]
    return found


def _anytime(
    study: Study, rows: list[int], num_tasks: int
) -> tuple[Floats, np.ndarray]:
    """Every segment of every task, and its task; segments nobody evaluated are cut."""
    columns = per_task(study.records, "anytime_accuracy_on")
    segment = study.records["segment"].to_numpy().astype(np.int64)
    size = int(segment.max()) + 1 if columns else 0
    run, task = np.divmod(study.index, study.num_tasks)
    picked = np.full(len(study.runs), -1)
    picked[rows] = np.arange(len(rows))
    own = np.nonzero((picked[run] >= 0) & (task < num_tasks) & bool(columns))[0]
    found = np.full((len(rows), num_tasks * size, num_tasks), np.nan)
    for j, name in columns.items():
        if j < num_tasks:
            values = numbers(study.records, name)[own]
            found[picked[run[own]], task[own] * size + segment[own], j] = values
    trained = np.repeat(np.arange(num_tasks), size)
    kept = np.isfinite(found).any(axis=(0, 2))
    return found[:, kept], trained[kept]


def _worst(values: Floats, bad: np.ndarray, trained: np.ndarray) -> Floats:
    """0 for the tasks learned so far, and for every other value, of a diverged run.

    An arg max over NaN is still a class: a broken network's accuracy is not NaN.
    """
    so_far = np.arange(values.shape[-1]) <= trained[:, None]
    known = np.isfinite(values) | (so_far & np.isfinite(values).any(axis=(0, 1)))
    return np.where(bad[:, trained][:, :, None] & known, 0.0, values)


def extent(found: list[Accuracies]) -> tuple[float, float]:
    """Lowest and highest mean accuracy of all tasks from their own training on."""
    values = [
        mean_over_runs(100.0 * one.matrix)[0][np.tri(one.matrix.shape[-1], dtype=bool)]
        for one in found
    ]
    seen = np.concatenate(values)
    seen = seen[np.isfinite(seen)]
    if not len(seen) or seen.min() == seen.max():
        return 0.0, 100.0
    room = 0.08 * (seen.max() - seen.min())
    return max(0.0, float(seen.min() - room)), min(100.0, float(seen.max() + room))


def picked(matrix: Floats, most: int) -> list[int]:
    """At most so many of the evaluated tasks, evenly spaced, first and last included."""
    tasks = np.nonzero(np.isfinite(matrix).any(axis=(0, 1)))[0]
    at = np.linspace(0, len(tasks) - 1, min(most, len(tasks)))
    return tasks[np.round(at).astype(int)].tolist()


def mean_over_runs(values: Floats) -> tuple[Floats, np.ndarray]:
    """Mean over the runs that have a value, and their number."""
    n = np.isfinite(values).sum(axis=0)
    total = np.nansum(values, axis=0)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan), n

"""Accuracies of the tasks so far while training goes on, as numbers (numpy, pure).

A is [..., N, T]: A[..., n, j] is the accuracy on task j at the n-th evaluation of the
run, in order, of the tasks j ≤ trained[n] (others NaN); `trained` [N] is the task that
was being trained, counted from 0. Leading axes are runs. As in `transfer`, a task
without any value was not evaluated and does not count, and any other missing value
makes a number NaN. Formulas count tasks from 1.
"""

import numpy as np
from numpy.typing import ArrayLike

from cl_bench.report.transfer import evaluated, mean_of
from cl_bench.stats import Floats


def average_anytime_accuracy(A: ArrayLike, trained: ArrayLike) -> Floats:
    """AAA = (1/N) Σ_n (1/k(n)) Σ_{j ≤ k(n)} A_j(n), k(n) the task trained: [...].

    Source: Caccia et al. 2022 ("New insights on reducing abrupt representation
    change"), there after every batch, here at every recorded evaluation.
    """
    A, trained = np.asarray(A, np.float64), np.asarray(trained)
    seen = np.arange(A.shape[-1]) <= trained[:, None]
    counted = seen & evaluated(A)[..., None, :]
    n = counted.sum(axis=-1)
    each = np.where(counted, A, 0.0).sum(axis=-1) / np.maximum(n, 1)
    return mean_of(each, n > 0)


def min_accuracy(A: ArrayLike, trained: ArrayLike) -> Floats:
    """min-ACC = 1/(T-1) Σ_{j < T} min over n after task j's end of A_j(n): [...].

    Source: De Lange et al. 2023 ("Continual evaluation for lifelong learning"), eq. 2.
    """
    A, trained = np.asarray(A, np.float64), np.asarray(trained)
    lowest = [
        _lowest(A[..., trained > j, j]) for j in range(A.shape[-1] - 1)
    ]  # [...] each
    if not lowest:
        return np.full(A.shape[:-2], np.nan)
    return mean_of(np.stack(lowest, axis=-1), evaluated(A)[..., :-1])


def worst_case_accuracy(A: ArrayLike, trained: ArrayLike) -> Floats:
    """WC-ACC = (1/T) A_T(end) + (1 - 1/T) min-ACC, at the end of the last task: [...].

    Source: De Lange et al. 2023, eq. 3. T counts the evaluated tasks.
    """
    A = np.asarray(A, np.float64)
    share = 1.0 / np.maximum(evaluated(A).sum(axis=-1), 1)
    if not A.shape[-2]:
        return np.full(A.shape[:-2], np.nan)
    return share * A[..., -1, -1] + (1.0 - share) * min_accuracy(A, trained)


def stability_gap(A: ArrayLike, trained: ArrayLike) -> Floats:
    """Mean over i and j < i of A_j before task i - min over n in task i of A_j(n): [...].

    How deep an earlier task falls while the next one is learned, even if it comes back;
    above 0 is a fall. Both are of the same test examples: the first is the last
    evaluation of task i - 1, not R, which may have read more of them.
    Source: the gap of De Lange et al. 2023.
    """
    A, trained = np.asarray(A, np.float64), np.asarray(trained)
    known, falls, counted = evaluated(A), [], []
    for i in range(1, A.shape[-1]):
        lowest = _lowest(np.swapaxes(A[..., trained == i, :i], -1, -2))
        before = A[..., trained == i - 1, :i]
        if not before.shape[-2]:
            return np.full(A.shape[:-2], np.nan)
        falls.append(before[..., -1, :] - lowest)
        counted.append(known[..., :i])
    if not falls:
        return np.full(A.shape[:-2], np.nan)
    return mean_of(np.concatenate(falls, axis=-1), np.concatenate(counted, axis=-1))


def windowed_forgetting(A: ArrayLike, trained: ArrayLike, window: int = 10) -> Floats:
    """WF: the largest loss of a task within `window` evaluations, mean over tasks: [...].

    (1/T) Σ_j max over m < n < m + window of A_j(m) - A_j(n), from task j's own training
    on; above 0 is a loss. Tasks that were evaluated once only do not count. Raises
    ValueError for a window below 2. Source: De Lange et al. 2023, there in iterations.
    """
    return _largest_change(-np.asarray(A, np.float64), trained, window)


def windowed_plasticity(A: ArrayLike, trained: ArrayLike, window: int = 10) -> Floats:
    """WP: the largest gain of a task within `window` evaluations, mean over tasks: [...].

    As `windowed_forgetting`, of A_j(n) - A_j(m). Source: De Lange et al. 2023.
    """
    return _largest_change(np.asarray(A, np.float64), trained, window)


def _largest_change(A: Floats, trained: ArrayLike, window: int) -> Floats:
    if window < 2:
        raise ValueError(f"window={window}: a change is between at least 2 evaluations")
    learned = np.arange(A.shape[-1]) <= np.asarray(trained)[:, None]
    found = np.full((*A.shape[:-2], A.shape[-1]), np.nan)
    for j in range(A.shape[-1]):
        own = A[..., learned[:, j], j]
        changes = [
            own[..., lag:] - own[..., :-lag]
            for lag in range(1, min(window, own.shape[-1]))
        ]
        if changes:
            found[..., j] = np.concatenate(changes, axis=-1).max(axis=-1)
    return mean_of(found, evaluated(A) & (learned.sum(axis=0) > 1))


def _lowest(values: Floats) -> Floats:
    """Minimum over the last axis, NaN where any is missing or there is none."""
    if not values.shape[-1]:
        return np.full(values.shape[:-1], np.nan)
    return values.min(axis=-1)

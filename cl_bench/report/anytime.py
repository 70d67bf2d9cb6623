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


def stability_gap(R: ArrayLike, A: ArrayLike, trained: ArrayLike) -> Floats:
    """Mean over i and j < i of R_{i-1,j} - min over n in task i of A_j(n): [...].

    How deep an earlier task falls while the next one is learned, even if it comes back;
    above 0 is a fall. Source: the gap of De Lange et al. 2023.
    """
    R, A, trained = (np.asarray(R, float), np.asarray(A, float), np.asarray(trained))
    known, falls, counted = evaluated(A), [], []
    for i in range(1, A.shape[-1]):
        lowest = _lowest(np.swapaxes(A[..., trained == i, :i], -1, -2))
        falls.append(R[..., i - 1, :i] - lowest)
        counted.append(known[..., :i])
    if not falls:
        return np.full(A.shape[:-2], np.nan)
    return mean_of(np.concatenate(falls, axis=-1), np.concatenate(counted, axis=-1))


def _lowest(values: Floats) -> Floats:
    """Minimum over the last axis, NaN where any is missing or there is none."""
    if not values.shape[-1]:
        return np.full(values.shape[:-1], np.nan)
    return values.min(axis=-1)

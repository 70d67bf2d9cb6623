"""Accuracy, transfer and forgetting as functions of the accuracy matrix (numpy, pure).

R is [..., T, T]: R[..., i, j] is the accuracy on task j after training on task i, tasks
counted from 0 and all of them in the order in which they are learned; leading axes are
runs. b [..., T] holds the accuracies of the untrained network. Formulas below count
tasks from 1, as the papers do.

A column without any value is a task that was not evaluated (a long stream evaluates
some tasks only): means are over the evaluated tasks. Any other value that a number
needs and that is NaN makes that number NaN: a run that is not finished has no final
accuracy, and a single task no backward transfer.
"""

import numpy as np
from numpy.typing import ArrayLike

from cl_bench.stats import Floats


def average_accuracy(R: ArrayLike) -> Floats:
    """ACC = (1/T) Σ_j R_Tj, after the last task: [...].

    Source: Lopez-Paz & Ranzato 2017 (GEM), eq. 2.
    """
    R = _matrix(R)
    return mean_of(R[..., -1, :], evaluated(R))


def average_accuracy_so_far(R: ArrayLike) -> Floats:
    """ACC_i = (1/i) Σ_{j ≤ i} R_ij after each task i: [..., T].

    Source: the curve of Rebuffi et al. 2017 (iCaRL), tasks weighted equally.
    """
    R = _matrix(R)
    return mean_of(R, _learned_by(R) & evaluated(R)[..., None, :])


def average_incremental_accuracy(R: ArrayLike) -> Floats:
    """AIA = (1/T) Σ_i ACC_i: [...].

    Source: Rebuffi et al. 2017 (iCaRL), "average incremental accuracy".
    """
    so_far = average_accuracy_so_far(R)
    # Before the first evaluated task there is nothing to average.
    return mean_of(so_far, np.cumsum(evaluated(_matrix(R)), axis=-1) > 0)


def weighted_average_accuracy(R: ArrayLike) -> Floats:
    """A = 2 / (T (T + 1)) Σ_{i ≥ j} R_ij: [...]. Early tasks count more often.

    Source: Diaz-Rodriguez et al. 2018; `accuracy_A` of Continuum.
    """
    R = _matrix(R)
    return _mean_of_pairs(R, R, _learned_by(R))


def learning_accuracy(R: ArrayLike) -> Floats:
    """LA = (1/T) Σ_j R_jj, each task just after it was learned: [...].

    ACC = LA + (T - 1)/T BWT. Source: Riemer et al. 2019 (MER).
    """
    R = _matrix(R)
    return mean_of(_diagonal(R), evaluated(R))


def backward_transfer(R: ArrayLike) -> Floats:
    """BWT = 1/(T-1) Σ_{j < T} (R_Tj - R_jj), of the last row alone: [...].

    Below 0 is forgetting. Source: Lopez-Paz & Ranzato 2017 (GEM), eq. 3.
    """
    R = _matrix(R)
    change = R[..., -1, :] - _diagonal(R)
    return mean_of(change[..., :-1], evaluated(R)[..., :-1])


def backward_transfer_all(R: ArrayLike) -> Floats:
    """2 / (T (T - 1)) Σ_{i > j} (R_ij - R_jj), of all rows: [...].

    Source: Diaz-Rodriguez et al. 2018; what Continuum calls BWT.
    """
    R = _matrix(R)
    change = R - _diagonal(R)[..., None, :]
    return _mean_of_pairs(change, R, _learned_before(R))


def positive_backward_transfer(R: ArrayLike) -> Floats:
    """BWT+ = max(backward_transfer_all, 0): [...]. Diaz-Rodriguez et al. 2018."""
    return np.maximum(backward_transfer_all(R), 0.0)


def remembering(R: ArrayLike) -> Floats:
    """REM = 1 - |min(backward_transfer_all, 0)|: [...]. Diaz-Rodriguez et al. 2018."""
    return 1.0 - np.abs(np.minimum(backward_transfer_all(R), 0.0))


def forgetting_chaudhry(R: ArrayLike) -> Floats:
    """1/(T-1) Σ_{j < T} [max_{j ≤ l < T} R_lj - R_Tj]: [...]. May be below 0.

    Source: Chaudhry et al. 2018 (RWalk), eq. 3, with l from the task's own row on;
    FACIL and Continuum.
    """
    return _below_best(R, last=False)


def forgetting_first_last(R: ArrayLike) -> Floats:
    """1/(T-1) Σ_{j < T} (R_jj - R_Tj) = -BWT: [...]. Source: Avalanche."""
    return -backward_transfer(R)


def forgetting_max_all(R: ArrayLike) -> Floats:
    """1/(T-1) Σ_{j < T} [max_{j ≤ l ≤ T} R_lj - R_Tj]: [...]. Never below 0.

    The last row is part of the maximum. Source: Mammoth, PyCIL.
    """
    return _below_best(R, last=True)


def forward_transfer(R: ArrayLike, b: ArrayLike) -> Floats:
    """FWT = 1/(T-1) Σ_{j ≥ 2} (R_{j-1,j} - b_j): [...].

    Where it is undefined: `no_forward_transfer`. Source: Lopez-Paz & Ranzato 2017
    (GEM), eq. 4.
    """
    R, initial = _matrix(R), np.asarray(b, np.float64)
    return mean_of(_diagonal(R, 1) - initial[..., 1:], evaluated(R)[..., 1:])


def forward_transfer_without_baseline(R: ArrayLike) -> Floats:
    """1/(T-1) Σ_{j ≥ 2} R_{j-1,j}, nothing subtracted: [...]. Source: Continuum."""
    R = _matrix(R)
    return mean_of(_diagonal(R, 1), evaluated(R)[..., 1:])


def no_forward_transfer(R: ArrayLike, b: ArrayLike, scenario: str = "") -> str:
    """Why FWT is undefined, '' where it is not.

    `scenario` is 'class' or 'task' where each task has outputs of its own: what an
    untrained head says of a future task is chance.
    """
    R = _matrix(R)
    if R.shape[-1] < 2:
        return "there is only one task"
    if scenario == "class":
        return "class-incremental: the classes of a future task were never seen"
    if scenario == "task":
        return "task-incremental: the outputs of a future task were never trained"
    if not np.isfinite(_diagonal(R, 1)).any():
        return "no task was evaluated before it was learned"
    if not np.isfinite(np.asarray(b, np.float64)).any():
        return "the untrained network was not evaluated"
    return ""


def intransigence(R: ArrayLike, joint: ArrayLike) -> Floats:
    """I = (1/T) Σ_k (a_k - R_kk): [...]. Above 0: it learned less than it could.

    `joint` [..., T]: a_k is the accuracy on task k of a reference that was trained
    jointly on the tasks up to k. Source: Chaudhry et al. 2018 (RWalk), eq. 4. Of a
    reference trained on all tasks reports call it `intransigence_all_tasks`.
    """
    R = _matrix(R)
    return mean_of(np.asarray(joint, np.float64) - _diagonal(R), evaluated(R))


def transfer_of_learning(R: ArrayLike, single_task: ArrayLike) -> Floats:
    """(1/T) Σ_j (R_jj - a_j): [...]. Above 0: earlier tasks helped to learn.

    `single_task` [..., T] is a_j, the accuracy of a new network on task j alone. What
    Continual World calls forward transfer, there of areas under learning curves.
    """
    R = _matrix(R)
    return mean_of(_diagonal(R) - np.asarray(single_task, np.float64), evaluated(R))


def normalised_plasticity(R: ArrayLike, single_task: ArrayLike) -> Floats:
    """P = (1/T) Σ_j R_jj / a_j: [...]. 1: it learned each task as a new network does.

    `single_task` [..., T] is a_j, the accuracy of a new network on task j alone; NaN
    where one of them is 0.
    """
    R, a = _matrix(R), np.asarray(single_task, np.float64)
    return mean_of(_diagonal(R) / np.where(a > 0.0, a, np.nan), evaluated(R))


def stability_plasticity(R: ArrayLike, single_task: ArrayLike = 1.0) -> Floats:
    """Harmonic mean 2 P S / (P + S) of plasticity and stability: [...].

    P = mean_j R_jj / a_j and S = mean_j R_Tj / max_{l ≥ j} R_lj. `single_task` [T] is
    a_j, the accuracy of a new network on task j alone; 1 leaves P = LA. A task whose
    accuracy was always 0 counts as 0 in S. A scalar summary of this suite's own.
    """
    R = _matrix(R)
    best = _best(R, last=True)
    kept = np.where(best == 0.0, 0.0, R[..., -1, :] / np.where(best == 0.0, 1.0, best))
    stable = mean_of(kept, evaluated(R))
    plastic = normalised_plasticity(R, single_task)
    total = plastic + stable
    return np.where(
        total == 0.0, 0.0, 2 * plastic * stable / np.where(total == 0.0, 1.0, total)
    )


def _matrix(R: ArrayLike) -> Floats:
    found = np.asarray(R, dtype=np.float64)
    if found.ndim < 2 or found.shape[-1] != found.shape[-2] or not found.shape[-1]:
        raise ValueError(f"R must be [..., T, T], not of shape {found.shape}.")
    return found


def evaluated(R: Floats) -> np.ndarray:
    """[..., T] bool: the tasks that have any accuracy."""
    return np.asarray(np.isfinite(R).any(axis=-2))


def _diagonal(R: Floats, offset: int = 0) -> Floats:
    return np.diagonal(R, offset, axis1=-2, axis2=-1)


def _learned_by(R: Floats) -> np.ndarray:
    """[T, T] bool: task j was learned by the end of task i, j ≤ i."""
    return np.tri(R.shape[-1], dtype=bool)


def _learned_before(R: Floats) -> np.ndarray:
    return np.tri(R.shape[-1], k=-1, dtype=bool)


def _best(R: Floats, last: bool) -> Floats:
    """[..., T] max of R_lj over l ≥ j, up to the last row or the one before it."""
    rows = np.where(_learned_by(R), R, -np.inf)
    return (rows if last else rows[..., :-1, :]).max(axis=-2, initial=-np.inf)


def _below_best(R: ArrayLike, last: bool) -> Floats:
    R = _matrix(R)
    lost = _best(R, last) - R[..., -1, :]
    return mean_of(lost[..., :-1], evaluated(R)[..., :-1])


def _mean_of_pairs(values: Floats, R: Floats, pairs: np.ndarray) -> Floats:
    counted = np.broadcast_to(pairs & evaluated(R)[..., None, :], R.shape)
    flat = (*R.shape[:-2], -1)
    return mean_of(values.reshape(flat), counted.reshape(flat))


def mean_of(values: Floats, counted: np.ndarray) -> Floats:
    """Mean of the counted entries of the last axis; NaN where none counts."""
    n = counted.sum(axis=-1)
    total = np.where(counted, values, 0.0).sum(axis=-1)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)

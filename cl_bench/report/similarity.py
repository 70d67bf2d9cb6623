"""How alike two tasks are, from what a network says of each (numpy, pure).

Flat vectors are over parameters [P]; features are [n, d] of one set of examples; bases
have orthonormal columns [d, k]. All are 1 for a task and itself. Which network, at
which point of training, and which examples is the caller's affair, and belongs to the
number: gradients at initialisation and at a task's end differ.
"""

import numpy as np
from numpy.typing import ArrayLike

from cl_bench.stats import Floats


def fisher_overlap(fisher_i: ArrayLike, fisher_j: ArrayLike) -> Floats:
    """1 - d², d² = (1/2) Σ (√f_i - √f_j)², f = F / tr F of diagonal Fishers [..., P].

    In [0, 1]; 0 where the tasks need different weights. NaN for a Fisher of zeros.
    Source: Kirkpatrick et al. 2017 (EWC), appendix, with the diagonal of F.
    """
    f_i, f_j = (_root_of_share(np.asarray(f, np.float64)) for f in (fisher_i, fisher_j))
    return 1.0 - 0.5 * np.sum(np.square(f_i - f_j), axis=-1)


def _root_of_share(fisher: Floats) -> Floats:
    if (fisher < 0.0).any():
        raise ValueError("a diagonal Fisher information has no entry below 0")
    trace = fisher.sum(axis=-1, keepdims=True)
    return np.sqrt(fisher / np.where(trace > 0.0, trace, np.nan))


def gradient_cosine(gradient_i: ArrayLike, gradient_j: ArrayLike) -> Floats:
    """cos(g_i, g_j) of two tasks' mean gradients [..., P] at the same parameters.

    Below 0 a step for one task is a step against the other. NaN where one is 0.
    """
    g_i, g_j = np.asarray(gradient_i, np.float64), np.asarray(gradient_j, np.float64)
    norm = np.linalg.norm(g_i, axis=-1) * np.linalg.norm(g_j, axis=-1)
    return np.sum(g_i * g_j, axis=-1) / np.where(norm > 0.0, norm, np.nan)


def linear_cka(x: ArrayLike, y: ArrayLike) -> float:
    """|Yc'Xc|² / (|Xc'Xc| |Yc'Yc|), Frobenius norms, columns centred: in [0, 1].

    x [n, d] and y [n, e] are features of two networks on the same n examples. Biased
    upwards where d is not much smaller than n. NaN for features that are constant.
    Source: Kornblith et al. 2019, eq. 4 with linear kernels.
    """
    a, b = (np.asarray(v, np.float64) for v in (x, y))
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b):
        raise ValueError(
            f"features of shapes {a.shape} and {b.shape}: both must be [n, d] of the "
            "same n examples"
        )
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    own = np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)
    return float(np.sum(np.square(b.T @ a)) / own) if own > 0.0 else float("nan")


def input_basis(inputs: ArrayLike, threshold: float = 0.97) -> Floats:
    """Basis [d, k] of the fewest directions that hold `threshold` of |inputs|².

    `inputs` is [n, d], what a layer reads of one task; not centred, as in GPM.
    Source: Saha et al. 2021 (GPM), eq. 5, of one task alone.
    """
    if not 0.0 < threshold <= 1.0:
        raise ValueError(f"threshold={threshold}: above 0 and at most 1")
    _, sigma, rows = np.linalg.svd(np.asarray(inputs, np.float64), full_matrices=False)
    energy = np.cumsum(np.square(sigma))
    enough = threshold * energy[-1] * (1.0 - 1e-12)  # of rounding in the sum
    return rows[: int(np.argmax(energy >= enough)) + 1].T


def subspace_overlap(basis_i: ArrayLike, basis_j: ArrayLike) -> float:
    """|M_i' M_j|² / min(k_i, k_j) of bases [d, k_i], [d, k_j]: in [0, 1].

    The mean squared cosine of the principal angles; 0 for orthogonal subspaces, 1
    where one lies in the other.
    """
    m_i, m_j = np.asarray(basis_i, np.float64), np.asarray(basis_j, np.float64)
    return float(np.sum(np.square(m_i.T @ m_j)) / min(m_i.shape[1], m_j.shape[1]))

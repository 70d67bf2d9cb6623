"""More measures of plasticity, each by its formula; the first ones are in `metrics`.

`h` are activations [N, ..., U] of one hidden layer on N examples.
"""

import numpy as np

from tests.reference.mlp import Params


def dead_neurons_kumar(h: np.ndarray) -> int:
    """Columns of the map flattened to [N, positions * U] that are 0 everywhere."""
    return int(np.sum(np.all(h.reshape(len(h), -1) == 0, axis=0)))


def stable_rank(h: np.ndarray) -> float:
    """||H||_F^2 / ||H||_2^2 (Rudelson & Vershynin 2007); 0 of a zero matrix."""
    h = np.asarray(h, np.float64)
    return float(np.sum(h**2) / np.linalg.norm(h, 2) ** 2) if h.any() else 0.0


def weight_rank(params: Params) -> float:
    """Sum of ranks / sum of largest ranks; of a convolution the mean over its filters.

    Elsayed & Mahmood (2024), released code. Kernels [in, out] or [kh, kw, in, out].
    """
    rank = most = 0.0
    for layer in params.values():
        kernel = np.asarray(layer["kernel"], np.float32)
        stacked = kernel if kernel.ndim == 2 else kernel.transpose(2, 3, 0, 1)
        rank += np.mean(np.linalg.matrix_rank(stacked))
        most += min(stacked.shape[-2:])
    return rank / most


def weight_l1(params: Params) -> float:
    """Sum of |w| over the weight matrices."""
    return float(sum(np.abs(layer["kernel"]).sum() for layer in params.values()))


def weight_l2(params: Params) -> float:
    """Root of the sum of w^2 over the weight matrices."""
    squares = (np.square(layer["kernel"]).sum() for layer in params.values())
    return float(np.sqrt(sum(squares)))


def steps_to_threshold(scores: np.ndarray, level: float, window: int) -> float:
    """End of the first whole window of `scores` [steps] whose mean reaches `level`."""
    for end in range(window, len(scores) + 1, window):
        if np.mean(scores[end - window : end]) >= level:
            return end
    return np.nan

"""Measures of plasticity, each by its formula.

`h` are the activations [N, U] of one hidden layer on N examples.
"""

import numpy as np

from tests.reference.mlp import Params


def dead_units(h: np.ndarray) -> int:
    """Units with sum_n |h_n| = 0 exactly (Dohare et al. 2024, Permuted MNIST)."""
    return int(np.sum(np.abs(h).sum(axis=0) == 0))


def dormant_units_dohare(h: np.ndarray, threshold: float = 0.01) -> int:
    """Units with h != 0 on less than 1 % of the examples (Dohare et al. 2024, CIFAR)."""
    return int(np.sum(np.mean(h != 0, axis=0) < threshold))


def dormant_units_sokar(h: np.ndarray, tau: float) -> int:
    """Units with mean|h_i| / mean_k mean|h_k| <= tau (Sokar et al. 2023, Eq. 1).

    In a layer of zeros every unit is dormant.
    """
    mean_abs = np.abs(h).mean(axis=0)
    if not mean_abs.any():
        return h.shape[1]
    return int(np.sum(mean_abs / mean_abs.mean() <= tau))


def _singular_values(h: np.ndarray) -> np.ndarray:
    return np.linalg.svd(np.asarray(h, np.float64), compute_uv=False)


def effective_rank(h: np.ndarray) -> float:
    """exp(-sum p ln p), p = sigma / sum sigma (Roy & Vetterli 2007); 0 of a zero matrix.

    (The released code's loop gives 1 for a zero matrix.)
    """
    s = _singular_values(h)
    if not s.any():
        return 0.0
    p = s[s > 0] / s.sum()
    return float(np.exp(-np.sum(p * np.log(p))))


def _first_to_reach(shares: np.ndarray, proportion: float) -> int:
    """Smallest k with shares_1 + ... + shares_k >= proportion."""
    total = 0.0
    for k, share in enumerate(shares, start=1):
        total += share
        if total >= proportion:
            return k
    return len(shares)


def approximate_rank(h: np.ndarray, proportion: float = 0.99) -> int:
    """Smallest k with sum_{i<=k} sigma_i^2 >= 0.99 sum sigma^2; 0 of a zero matrix."""
    s = _singular_values(h)
    return _first_to_reach(s**2 / np.sum(s**2), proportion) if s.any() else 0


def abs_approximate_rank(h: np.ndarray, proportion: float = 0.99) -> int:
    """Smallest k with sum_{i<=k} sigma_i >= 0.99 sum sigma; 0 of a zero matrix.

    This is srank with delta = 0.01 of Kumar et al. (2021), and the "stable rank" of
    Dohare et al. (2024).
    """
    s = _singular_values(h)
    return _first_to_reach(s / np.sum(s), proportion) if s.any() else 0


def srank_kumar(h: np.ndarray, delta: float = 0.01) -> int:
    """How many cumulative shares of sigma are < 1 - delta: the L2-Init code, no + 1."""
    s = _singular_values(h)
    return int(np.sum(np.cumsum(s) / np.sum(s) < 1 - delta)) if s.any() else 0


def weight_magnitude(params: Params) -> float:
    """Mean |w| over all weight matrices, the head's too, without biases (MNIST)."""
    kernels = [layer["kernel"] for layer in params.values()]
    return sum(np.abs(k).sum() for k in kernels) / sum(k.size for k in kernels)


def parameter_magnitude(params: Params) -> float:
    """Mean |theta| over all parameters, biases too (CIFAR)."""
    arrays = [array for layer in params.values() for array in layer.values()]
    return sum(np.abs(a).sum() for a in arrays) / sum(a.size for a in arrays)


def zero_activation_fraction(activations: dict[str, np.ndarray]) -> float:
    """Share of hidden outputs equal to 0 on the given examples, all layers pooled.

    `activations` holds the hidden layers only. UPGD calls it "dead units" and takes it
    on the single current sample.
    """
    zeros = sum(int(np.sum(h == 0)) for h in activations.values())
    return zeros / sum(h.size for h in activations.values())


def sample_plasticity(loss_before: float, loss_after: float) -> float:
    """1 - L_after / max(L_before, 1e-8), clipped to [0, 1], on one and the same sample.

    Elsayed & Mahmood (2024).
    """
    return float(np.clip(1 - loss_after / max(loss_before, 1e-8), 0, 1))

"""A-GEM's and GEM's projections of a gradient g [P], on vectors."""

from itertools import product

import numpy as np


def agem(g: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Chaudhry et al. 2019, equation 11: g - (g.r / r.r) r if g.r < 0, else g."""
    along = g @ reference
    return g - along / (reference @ reference) * reference if along < 0 else g


def gem(g: np.ndarray, rows: np.ndarray, *, margin: float, jitter: float) -> np.ndarray:
    """Lopez-Paz & Ranzato 2017, equation 11: g + G^T u where some row of G [t, P] has
    g_k . g < 0, else g; u minimises 1/2 u^T (G G^T + jitter I) u + (G g)^T u, u >= margin.
    """
    if not np.any(rows @ g < 0):
        return g
    return g + rows.T @ dual(
        rows @ rows.T + jitter * np.eye(len(rows)), rows @ g, margin
    )


def dual(p: np.ndarray, q: np.ndarray, margin: float) -> np.ndarray:
    """argmin 1/2 u^T p u + q^T u, u >= margin: the best of all 2^t sets of bounds."""
    best, least = np.full(len(q), margin), np.inf
    for chosen in product([False, True], repeat=len(q)):
        free = np.array(chosen)
        u = np.full(len(q), float(margin))
        if free.any():
            right = -q[free] - p[free][:, ~free] @ u[~free]
            u[free] = np.linalg.solve(p[free][:, free], right)
        value = 0.5 * u @ p @ u + q @ u
        if np.all(u >= margin) and value < least:
            best, least = u, value
    return best

"""Orthogonal gradient descent (Farajtabar et al., AISTATS 2020), OGD-GTL.

After each task, for some examples (x, y): u = grad f_y(x) - sum_v <grad f_y(x), v> v
over the v stored so far, normalised, is stored too (Gram-Schmidt). Steps take
g - sum_v <g, v> v. A u of size 0 is not stored.
"""

import numpy as np

from tests.reference import logits
from tests.reference.mlp import Params


def flat(params: Params) -> np.ndarray:
    """All parameters as one vector, modules and leaves by name."""
    return np.concatenate(
        [params[m][leaf].ravel() for m in sorted(params) for leaf in sorted(params[m])]
    )


def unflat(vector: np.ndarray, like: Params) -> Params:
    """The inverse of `flat`."""
    found: Params = {}
    start = 0
    for m in sorted(like):
        found[m] = {}
        for leaf in sorted(like[m]):
            size, shape = like[m][leaf].size, like[m][leaf].shape
            found[m][leaf] = vector[start : start + size].reshape(shape)
            start += size
    return found


def store(
    basis: list[np.ndarray], params: Params, x: np.ndarray, y: np.ndarray
) -> list[np.ndarray]:
    """The basis with the directions of these examples, one by one."""
    basis = list(basis)
    for i in range(len(x)):
        delta = np.zeros((1, params["head"]["bias"].size))
        delta[0, y[i]] = 1.0
        gradient = flat(logits.vjp(params, x[i : i + 1], delta))
        u = gradient
        for _ in range(2):
            for v in basis:
                u = u - (u @ v) * v
        if np.linalg.norm(u) > 1e-9 * np.linalg.norm(gradient):
            basis.append(u / np.linalg.norm(u))
    return basis


def project(grads: Params, basis: list[np.ndarray]) -> Params:
    """g - sum_v <g, v> v."""
    g = flat(grads)
    for v in basis:
        g = g - (g @ v) * v
    return unflat(g, grads)

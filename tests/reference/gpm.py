"""Gradient projection memory (Saha et al., ICLR 2021) for dense layers.

After each task, per layer: R [in, n] the inputs of n examples; R_hat = R - M M^T R; the
left singular vectors of R_hat join M, the fewest such that
||M M^T R||_F^2 + sum of their squared singular values >= epsilon ||R||_F^2 (eqs. 5, 9).
Later gradients dL/dW [out, in] become G - G M M^T, here with kernels [in, out].
Choices: biases get no gradient after the first task, or all of it.
"""

import numpy as np

from tests.reference.mlp import Params, cast, forward, layer_names

Bases = dict[str, np.ndarray]


def init(params: Params) -> Bases:
    """Empty bases [in, 0]."""
    return {name: np.zeros((len(p["kernel"]), 0)) for name, p in params.items()}


def inputs(params: Params, x: np.ndarray) -> dict[str, np.ndarray]:
    """What each layer reads: [n, in]."""
    names = layer_names(params)
    _, activations, _ = forward(cast(params), np.asarray(x, np.float64))
    below = ["x", *names[:-1]]
    return {name: activations[b] for name, b in zip(names, below, strict=True)}


def grow(basis: np.ndarray, r: np.ndarray, epsilon: float) -> np.ndarray:
    """M with the fewest new columns that reach epsilon; r [in, n]."""
    inside = basis @ (basis.T @ r)
    u, s, _ = np.linalg.svd(r - inside)
    total, held, k = (r**2).sum(), (inside**2).sum(), 0
    while k < len(s) and held < epsilon * total and s[k] > 1e-9 * np.sqrt(total):
        held += s[k] ** 2
        k += 1
    return np.hstack([basis, u[:, :k]])


def update(
    bases: Bases, params: Params, x: np.ndarray, epsilons: dict[str, float]
) -> Bases:
    """All bases after a task."""
    read = inputs(params, x)
    return {n: grow(basis, read[n].T, epsilons[n]) for n, basis in bases.items()}


def project(grads: Params, bases: Bases, freeze_biases: bool) -> Params:
    """G - G M M^T for the layers of `bases`; their biases 0 if frozen."""
    projected = cast(grads)
    for name, basis in bases.items():
        g = grads[name]["kernel"].T
        projected[name]["kernel"] = (g - g @ basis @ basis.T).T
        if freeze_biases:
            projected[name]["bias"][:] = 0
    return projected

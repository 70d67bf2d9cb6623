"""FIRE, Frobenius-isometry reinitialisation (Han et al., ICLR 2026, arXiv 2602.08040).

At a boundary every weight matrix W (out x in) becomes
sqrt(d_out / d_in) / (kh kw) NS(W / ||W||_F), where NS is Newton-Schulz,
X <- 1.5 X - .5 X X^T X, ten times: towards the nearest matrix whose singular values
are all 1. Choices: a convolution [kh, kw, in, out] is treated one kernel position at a
time, each in x out slice with its own norm; a dense kernel has kh = kw = 1; all
layers, the head too, unless it is in `skip`; biases and normalisation layers are left
alone; a slice of zeros stays 0.
"""

import numpy as np

from tests.reference.mlp import Params, cast


def newton_schulz(matrix: np.ndarray, iterations: int = 10) -> np.ndarray:
    """X <- 1.5 X - .5 X X^T X from X = W / ||W||_F.

    Every singular value s goes to 1.5 s - .5 s^3: at first times 1.5, near 1
    quadratically. One below about 1.5^-iterations is not there yet.
    """
    norm = np.linalg.norm(matrix)
    x = matrix / norm if norm > 0 else matrix
    for _ in range(iterations):
        x = 1.5 * x - 0.5 * x @ x.T @ x
    return x


def isometric(kernel: np.ndarray, iterations: int = 10) -> np.ndarray:
    """The new kernel, [in, out] or [kh, kw, in, out]."""
    kernel = np.asarray(kernel, np.float64)
    d_in, d_out = kernel.shape[-2:]
    slices = kernel.reshape(-1, d_in, d_out)
    new = np.stack([newton_schulz(w.T, iterations).T for w in slices])
    return np.sqrt(d_out / d_in) / len(slices) * new.reshape(kernel.shape)


def boundary(
    params: Params, *, iterations: int = 10, skip: tuple[str, ...] = ()
) -> Params:
    """Parameters with every kernel made isometric, modules in `skip` excepted."""
    params = cast(params)
    for name, layer in params.items():
        if name not in skip:
            layer["kernel"] = isometric(layer["kernel"], iterations)
    return params

"""Spectral regularisation (Lewandowski et al., ICLR 2025, arXiv 2406.06811).

Loss + lambda sum_l [(sigma_1(W_l)^k - 1)^2 + ||b_l||_2^(2k)], k = 2, with W (out x in).
sigma_1 comes from one power iteration a step, from a vector v [in] kept per layer:
u <- W v / ||W v||, v <- W^T u / ||W^T u||, sigma = u^T W v, with u and v constants of
the gradient: d sigma / d W = u v^T.

Choices: all layers count, the head too. A convolution kernel [kh, kw, in, out] is the
matrix out x (kh kw in), input positions in memory order. Scale and shift of
normalisation layers go elementwise, as 1 x 1 matrices and biases of one unit:
sum (scale^k - 1)^2 + shift^(2k) (`norm_form` 'power'), or sum (scale - 1)^2 + shift^2
('squared'): the text says only that they are pushed to 1 and 0. The power iteration
runs on the parameters before the step and its v is kept for the next.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.reference.mlp import Params, cast, map_params
from tests.reference.optimizers import OptState

Vectors = dict[str, np.ndarray]


def matrix(kernel: np.ndarray) -> np.ndarray:
    """W (out x in) of a kernel [..., in, out]."""
    return np.reshape(kernel, (-1, np.shape(kernel)[-1])).T


def _unit(vector: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(vector)
    return vector / norm if norm > 0 else vector


def power_iteration(
    w: np.ndarray, v: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """sigma, u [out] and the new v [in] after one iteration from v."""
    u = _unit(w @ v)
    v = _unit(w.T @ u)
    return float(u @ w @ v), u, v


def penalty(
    params: Params,
    vectors: Vectors,
    *,
    strength: float,
    k: int = 2,
    norm_form: str = "power",
) -> float:
    """The penalty, sigma_1 after one power iteration from `vectors`."""
    total, p = 0.0, k if norm_form == "power" else 1
    for name, layer in params.items():
        sigma, _, _ = power_iteration(matrix(layer["kernel"]), vectors[name])
        total += (sigma**k - 1) ** 2 + np.linalg.norm(layer["bias"]) ** (2 * k)
        if "scale" in layer:
            total += ((layer["scale"] ** p - 1) ** 2).sum()
        if "shift" in layer:
            total += (layer["shift"] ** (2 * p)).sum()
    return strength * float(total)


def gradient(
    params: Params,
    vectors: Vectors,
    *,
    strength: float,
    k: int = 2,
    norm_form: str = "power",
) -> tuple[Params, Vectors]:
    """Gradient of the penalty, and the vectors after the power iteration.

    W: 2 (sigma^k - 1) k sigma^(k-1) u v^T;  b: 2k ||b||^(2k-2) b.
    """
    grads = map_params(lambda leaf: np.zeros_like(leaf, dtype=np.float64), params)
    after, p = {}, k if norm_form == "power" else 1
    for name, layer in params.items():
        sigma, u, after[name] = power_iteration(matrix(layer["kernel"]), vectors[name])
        w_grad = 2 * (sigma**k - 1) * k * sigma ** (k - 1) * np.outer(u, after[name])
        bias, out = layer["bias"], grads[name]
        out["kernel"] = strength * w_grad.T.reshape(layer["kernel"].shape)
        out["bias"] = strength * 2 * k * np.linalg.norm(bias) ** (2 * k - 2) * bias
        if "scale" in layer:
            scale = layer["scale"]
            out["scale"] = strength * 2 * (scale**p - 1) * p * scale ** (p - 1)
        if "shift" in layer:
            out["shift"] = strength * 2 * p * layer["shift"] ** (2 * p - 1)
    return grads, after


def init(params: Params, rng: np.random.Generator) -> Vectors:
    """A random unit vector [in] per layer."""
    return {
        name: _unit(rng.normal(size=matrix(layer["kernel"]).shape[1]))
        for name, layer in params.items()
    }


def step(
    params: Params,
    grads: Params,
    opt_state: OptState,
    vectors: Vectors,
    *,
    optimizer: Callable[..., tuple[Params, OptState]],
    **penalty_options: Any,
) -> tuple[Params, OptState, Vectors]:
    """One step of `optimizer(params, grads, opt_state)` on the penalised loss."""
    params = cast(params)
    extra, vectors = gradient(params, vectors, **penalty_options)
    params, opt_state = optimizer(params, map_params(np.add, grads, extra), opt_state)
    return params, opt_state, vectors

"""Parseval regularisation (Chung et al., NeurIPS 2024).

Loss + lambda sum_l c_l ||W_l W_l^T - s I||_F^2 over the hidden layers, never the head,
with W (out x in): rows of norm sqrt(s), orthogonal to one another. s = 2 is the
squared gain of the orthogonal initialisation for ReLU (the reference), s = 1 that of
ports. Choices: c_l = 1, or (64 / width)^2 with `width_scaling`, width the layer's own
number of outputs (all hidden layers of the reference are equally wide); a layer that
is wider than its input cannot reach 0 and is penalised all the same; biases are free;
a convolution kernel [kh, kw, in, out] is the matrix out x (kh kw in).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.reference.mlp import Params, cast, map_params
from tests.reference.optimizers import OptState
from tests.reference.spectral import matrix


def _excess(kernel: np.ndarray, s: float) -> np.ndarray:
    """W W^T - s I, [out, out]."""
    w = matrix(kernel)
    return w @ w.T - s * np.eye(len(w))


def _weight(kernel: np.ndarray, strength: float, width_scaling: bool) -> float:
    return strength * ((64 / kernel.shape[-1]) ** 2 if width_scaling else 1.0)


def penalty(
    params: Params, *, strength: float, s: float = 2.0, width_scaling: bool = False
) -> float:
    """lambda sum_l c_l ||W W^T - s I||_F^2."""
    kernels = [layer["kernel"] for name, layer in params.items() if name != "head"]
    return float(
        sum(
            _weight(kernel, strength, width_scaling) * (_excess(kernel, s) ** 2).sum()
            for kernel in kernels
        )
    )


def gradient(
    params: Params, *, strength: float, s: float = 2.0, width_scaling: bool = False
) -> Params:
    """4 lambda c_l (W W^T - s I) W for hidden kernels, 0 elsewhere."""
    grads = map_params(lambda p: np.zeros_like(p, dtype=np.float64), params)
    for name, layer in params.items():
        if name != "head":
            kernel = layer["kernel"]
            w_grad = 4 * _excess(kernel, s) @ matrix(kernel)
            w_grad = _weight(kernel, strength, width_scaling) * w_grad
            grads[name]["kernel"] = w_grad.T.reshape(kernel.shape)
    return grads


def step(
    params: Params,
    grads: Params,
    opt_state: OptState,
    *,
    optimizer: Callable[..., tuple[Params, OptState]],
    **penalty_options: Any,
) -> tuple[Params, OptState]:
    """One step of `optimizer(params, grads, opt_state)` on the penalised loss."""
    params = cast(params)
    extra = gradient(params, **penalty_options)
    return optimizer(params, map_params(np.add, grads, extra), opt_state)

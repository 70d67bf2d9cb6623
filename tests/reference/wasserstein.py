"""Wasserstein regularisation, W-init (Lewandowski et al. 2023, arXiv 2312.00246).

Loss + lambda sum_l ||sort(theta_l) - sort(theta_0,l)||^2: the squared 2-Wasserstein
distance, times the number of parameters, between the values that layer l has now and
had at the start. Choices: theta_l is the kernel and the bias of a layer as one vector;
all layers, the head too; lambda has no factor 1/2 and the sum is not divided by the
number of parameters; scale and shift of normalisation layers are left out.
"""

from collections.abc import Callable

import numpy as np

from tests.reference.mlp import Layer, Params, cast, map_params
from tests.reference.optimizers import OptState


def flatten(layer: Layer) -> np.ndarray:
    """theta_l: the kernel, row by row, then the bias."""
    return np.concatenate([np.ravel(layer["kernel"]), np.ravel(layer["bias"])])


def penalty(params: Params, reference: Params, *, strength: float) -> float:
    """lambda sum_l sum_i (theta_l(i) - theta_0,l(i))^2 over order statistics (i)."""
    total = 0.0
    for name, layer in params.items():
        now, before = np.sort(flatten(layer)), np.sort(flatten(reference[name]))
        total += float(((now - before) ** 2).sum())
    return strength * total


def gradient(params: Params, reference: Params, *, strength: float) -> Params:
    """2 lambda (theta_i - theta_0,(rank of i)) for every parameter i of a layer.

    The sort is differentiated through its permutation, which is constant between ties;
    of equal parameters the first has the lower rank.
    """
    grads = map_params(lambda p: np.zeros_like(p, dtype=np.float64), params)
    for name, layer in params.items():
        vector = flatten(layer).astype(np.float64)
        order = np.argsort(vector, kind="stable")
        grad = np.empty_like(vector)
        grad[order] = 2 * strength * (vector[order] - np.sort(flatten(reference[name])))
        size = layer["kernel"].size
        grads[name]["kernel"] = grad[:size].reshape(layer["kernel"].shape)
        grads[name]["bias"] = grad[size:].reshape(layer["bias"].shape)
    return grads


def init(params: Params) -> Params:
    """theta_0: a copy of the parameters before the first step."""
    return cast(params)


def step(
    params: Params,
    grads: Params,
    opt_state: OptState,
    reference: Params,
    *,
    optimizer: Callable[..., tuple[Params, OptState]],
    strength: float,
) -> tuple[Params, OptState, Params]:
    """One step of `optimizer(params, grads, opt_state)` on the penalised loss."""
    params = cast(params)
    extra = gradient(params, reference, strength=strength)
    params, opt_state = optimizer(params, map_params(np.add, grads, extra), opt_state)
    return params, opt_state, reference

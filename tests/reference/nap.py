"""Normalise-and-Project (Lyle et al., NeurIPS 2024).

After every k-th optimiser step each hidden kernel is rescaled to its initial Frobenius
norm, W <- rho W / ||W||_F, and scale and shift of a normalisation layer together to
their joint initial norm, (scale, shift) <- rho' (scale, shift) / ||(scale, shift)||.

Choices: the head is never projected; step t counts from 1 and projects when k divides
t; a kernel of norm 0 stays 0; biases before a normalisation, which the paper leaves
out of its networks, are kept, or held at 0 with `remove_bias`; a network without
normalisation layers is projected all the same (kernels only).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.reference.mlp import Params, cast
from tests.reference.optimizers import OptState

State = dict[str, Any]


def _groups(layer: dict[str, np.ndarray]) -> list[tuple[str, ...]]:
    """Leaves that are rescaled together."""
    affine = tuple(name for name in ("scale", "shift") if name in layer)
    return [("kernel",), affine] if affine else [("kernel",)]


def _norm(layer: dict[str, np.ndarray], group: tuple[str, ...]) -> float:
    return float(np.sqrt(sum((layer[name] ** 2).sum() for name in group)))


def init(params: Params) -> State:
    """The initial norms of every hidden layer, and the step count."""
    norms = {
        (module, group): _norm(layer, group)
        for module, layer in cast(params).items()
        if module != "head"
        for group in _groups(layer)
    }
    return {"norms": norms, "count": 0}


def project(params: Params, norms: dict[Any, float]) -> Params:
    """Parameters with the norms of the start."""
    params = cast(params)
    for (module, group), rho in norms.items():
        layer = params[module]
        norm = _norm(layer, group)
        for name in group:
            layer[name] = layer[name] * (rho / norm if norm > 0 else 1.0)
    return params


def step(
    params: Params,
    grads: Params,
    opt_state: OptState,
    state: State,
    *,
    optimizer: Callable[..., tuple[Params, OptState]],
    period: int = 1,
    remove_bias: bool = False,
) -> tuple[Params, OptState, State]:
    """`optimizer(params, grads, opt_state)`, then the projection at every `period`."""
    params, opt_state = optimizer(cast(params), grads, opt_state)
    state = {**state, "count": state["count"] + 1}
    if state["count"] % period == 0:
        params = project(params, state["norms"])
    if remove_bias:
        for module, layer in params.items():
            if module != "head":
                layer["bias"] = np.zeros_like(layer["bias"])
    return params, opt_state, state

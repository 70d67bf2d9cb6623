"""TRAC (Muppidi, Zhang & Yang, NeurIPS 2024, Algorithms 1 and 2).

Wraps a base optimiser, which proposes theta' from theta and g. theta_ref is theta
before the first step, S = sum of the six s_beta, eps = s_prev = 1e-8:

    Delta = (theta - theta_ref) / (S + eps),   h = <Delta, g> over all parameters
    v <- beta^2 v + h^2,   sigma <- beta sigma - h             for each beta
    s_beta = s_prev / erfi(1 / sqrt 2) * erfi(sigma / (sqrt 2 sqrt v + eps))
    theta <- theta_ref + max(S, 0) (Delta + theta' - theta)    with the new S

sigma starts at 1e-8, v and s at 0, as in the released code. Choices: Delta divides by
the old S as it is, negative values too (only the factor in front is clamped); g is
the gradient of the loss; the state of the base optimiser runs on as if nothing were
wrapped; erfi is scipy's, real and exact, where the code has an approximation.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import erfi

from tests.reference.mlp import Params, cast, map_params
from tests.reference.optimizers import OptState

BETAS = (0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999)
State = dict[str, Any]


def init(
    params: Params, *, betas: tuple[float, ...] = BETAS, eps: float = 1e-8
) -> State:
    """theta_ref, and v, sigma and s [number of betas]."""
    zeros = np.zeros(len(betas))
    return {
        "reference": cast(params),
        "v": zeros,
        "sigma": np.full(len(betas), eps),
        "s": zeros,
    }


def inner_product(left: Params, right: Params) -> float:
    """sum_i left_i right_i over all parameters."""
    products = map_params(lambda a, b: float(np.sum(a * b)), left, right)
    return float(sum(p for leaves in products.values() for p in leaves.values()))


def tune(
    state: State, h: float, *, betas: tuple[float, ...] = BETAS, eps: float = 1e-8
) -> State:
    """v, sigma and s of every beta after the scalar h."""
    beta = np.asarray(betas, np.float64)
    v = beta**2 * state["v"] + h**2
    sigma = beta * state["sigma"] - h
    s = eps / erfi(1 / np.sqrt(2)) * erfi(sigma / (np.sqrt(2) * np.sqrt(v) + eps))
    return {**state, "v": v, "sigma": sigma, "s": s}


def step(
    params: Params,
    grads: Params,
    opt_state: OptState,
    state: State,
    *,
    optimizer: Callable[..., tuple[Params, OptState]],
    betas: tuple[float, ...] = BETAS,
    eps: float = 1e-8,
) -> tuple[Params, OptState, State]:
    """One step of TRAC around `optimizer(params, grads, opt_state)`."""
    params, grads = cast(params), cast(grads)
    proposed, opt_state = optimizer(params, grads, opt_state)
    scale = float(np.sum(state["s"])) + eps
    delta = map_params(lambda p, ref: (p - ref) / scale, params, state["reference"])
    state = tune(state, inner_product(delta, grads), betas=betas, eps=eps)
    factor = max(float(np.sum(state["s"])), 0.0)

    def move(ref: Any, delta: Any, new: Any, old: Any) -> Any:
        return ref + factor * (delta + new - old)

    moved = map_params(move, state["reference"], delta, proposed, params)
    return moved, opt_state, state

"""Optimisers, by their update equations.

theta parameters, g gradient, alpha `step_size`. Every update has the form
`update(params, grads, state, **hyper) -> (params, state)` and changes nothing in
place; arrays keep the type of the parameters.
"""

from itertools import pairwise
from typing import Any

import numpy as np

from tests.reference.mlp import Params, cast, layer_names, map_params

OptState = dict[str, Any]


def coupled_l2(params: Params, grads: Params, l2: float) -> Params:
    """g + lambda theta for every parameter, biases too (PyTorch `weight_decay`)."""
    return map_params(lambda p, g: g + l2 * p, params, grads)


def init_sgd(params: Params) -> OptState:
    """Plain SGD has no state."""
    del params
    return {}


def sgd(
    params: Params, grads: Params, state: OptState, *, step_size: float
) -> tuple[Params, OptState]:
    """theta <- theta - alpha g."""
    return map_params(lambda p, g: p - step_size * g, params, grads), state


def init_momentum(params: Params) -> OptState:
    """m = 0."""
    return {"m": map_params(np.zeros_like, params)}


def momentum(
    params: Params, grads: Params, state: OptState, *, step_size: float, mu: float
) -> tuple[Params, OptState]:
    """Heavy ball in PyTorch's convention: m <- mu m + g, theta <- theta - alpha m."""
    m = map_params(lambda m, g: mu * m + g, state["m"], grads)
    return map_params(lambda p, m: p - step_size * m, params, m), {"m": m}


def init_adam(params: Params) -> OptState:
    """m = v = 0, and one step counter for the whole network."""
    zeros = map_params(np.zeros_like, params)
    return {"m": zeros, "v": map_params(np.copy, zeros), "count": 0}


def init_adam_per_element(params: Params) -> OptState:
    """m = v = 0, and a step counter for every single parameter."""
    return {**init_adam(params), "count": map_params(np.zeros_like, params)}


def _moments(
    grads: Params, state: OptState, b1: float, b2: float
) -> tuple[Params, Params]:
    """m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g^2 (Kingma & Ba 2015, Alg. 1)."""
    m = map_params(lambda m, g: b1 * m + (1 - b1) * g, state["m"], grads)
    v = map_params(lambda v, g: b2 * v + (1 - b2) * g**2, state["v"], grads)
    return m, v


def _counts(state: OptState) -> Params:
    """The step counter of every parameter, after this step."""
    count = state["count"]
    if isinstance(count, dict):
        return map_params(lambda t: t + 1, count)
    return map_params(lambda m: np.full_like(m, count + 1), state["m"])


def adam(
    params: Params,
    grads: Params,
    state: OptState,
    *,
    step_size: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> tuple[Params, OptState]:
    """Adam (Kingma & Ba 2015, Algorithm 1).

    theta <- theta - alpha m_hat / (sqrt(v_hat) + eps), with m_hat = m / (1 - b1^t) and
    v_hat = v / (1 - b2^t). From `init_adam` t counts all steps; from
    `init_adam_per_element` it counts the steps of each parameter since its last reset:
    Adam whose bias correction goes by the age of the unit.
    """
    m, v = _moments(grads, state, b1, b2)
    t = _counts(state)

    def move(p: np.ndarray, m: np.ndarray, v: np.ndarray, t: np.ndarray) -> np.ndarray:
        m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
        return p - step_size * m_hat / (np.sqrt(v_hat) + eps)

    count = t if isinstance(state["count"], dict) else state["count"] + 1
    return map_params(move, params, m, v, t), {"m": m, "v": v, "count": count}


def adamw(
    params: Params,
    grads: Params,
    state: OptState,
    *,
    step_size: float,
    weight_decay: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> tuple[Params, OptState]:
    """Adam with decoupled decay (Loshchilov & Hutter 2019, Alg. 2; PyTorch's alpha).

    theta <- theta - alpha wd theta - alpha m_hat / (sqrt(v_hat) + eps): the decay is
    multiplied by the step size and never enters the moments.
    """
    moved, state = adam(
        params, grads, state, step_size=step_size, b1=b1, b2=b2, eps=eps
    )
    decayed = map_params(
        lambda new, old: new - step_size * weight_decay * old, moved, params
    )
    return decayed, state


def adam_gnt(
    params: Params,
    grads: Params,
    state: OptState,
    *,
    step_size: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    variant: str = "released",
) -> tuple[Params, OptState]:
    """AdamGnT of the released continual-backprop code; state: `init_adam_per_element`.

    'released': alpha (1 - b2^t) m / (sqrt(v) + eps). The code computes
    sqrt(1 - b2^t) / (1 - b1^t) and throws the result away.
    'intended': alpha sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps).
    """
    m, v = _moments(grads, state, b1, b2)
    t = _counts(state)

    def move(p: np.ndarray, m: np.ndarray, v: np.ndarray, t: np.ndarray) -> np.ndarray:
        if variant == "released":
            correction = 1 - b2**t
        elif variant == "intended":
            correction = np.sqrt(1 - b2**t) / (1 - b1**t)
        else:
            raise ValueError(f"unknown AdamGnT variant {variant!r}")
        return p - step_size * correction * m / (np.sqrt(v) + eps)

    return map_params(move, params, m, v, t), {"m": m, "v": v, "count": t}


def counts_from_unit_ages(
    params: Params, ages: dict[str, np.ndarray], steps: int
) -> Params:
    """Per-parameter step counters, from unit ages [U] (updates since the last reset).

    A weight is as old as the younger of the two units it joins, a bias as its unit.
    Inputs and outputs are never replaced: they are `steps` old.
    """
    names = layer_names(params)
    counts: Params = {}
    for name, below in zip(names, ["x", *names[:-1]], strict=True):
        kernel = params[name]["kernel"]
        old_in = ages.get(below, np.full(kernel.shape[0], steps))
        old_out = ages.get(name, np.full(kernel.shape[1], steps))
        counts[name] = {
            "kernel": np.minimum(old_in[:, None], old_out[None, :]).astype(
                kernel.dtype
            ),
            "bias": np.asarray(old_out, kernel.dtype),
        }
    return counts


def reset_moments(
    opt_state: OptState, replaced: dict[str, np.ndarray], mode: str
) -> OptState:
    """Zero the optimiser state of what belongs to the replaced units (masks [U]).

    That is their incoming weights, incoming bias and outgoing weights.

    `mode` is 'none', 'moments' (m and, where there is one, v) or 'moments+count' (also the step
    counters, which must then be kept per parameter: `init_adam_per_element`).
    """
    if mode == "none":
        return opt_state
    if mode not in ("moments", "moments+count"):
        raise ValueError(f"unknown moment reset {mode!r}")
    keys = [key for key in ("m", "v") if key in opt_state]
    if mode == "moments+count":
        if not isinstance(opt_state.get("count"), dict):
            raise ValueError("'moments+count' needs a step counter for each parameter")
        keys.append("count")
    trees = {}
    for key in keys:
        tree = cast(opt_state[key], opt_state[key]["head"]["kernel"].dtype)
        names = layer_names(tree)
        for name, above in pairwise(names):
            tree[name]["kernel"][:, replaced[name]] = 0
            tree[name]["bias"][replaced[name]] = 0
            tree[above]["kernel"][replaced[name], :] = 0
        trees[key] = tree
    return {**opt_state, **trees}

"""Continual backprop for fully connected networks (Dohare, Sutton & Mahmood 2021-24).

Order of one step: forward (activations kept), backward, optimiser step, then
generate-and-test with the *pre-update* activations and the *post-update* weights:

1. test: for every hidden layer, before any layer is changed: ages + 1, utilities,
   eligible units, number to replace, which ones;
2. generate: layer by layer from the input, the chosen units are made new. Where units
   of two neighbouring layers are both replaced, the weight that joins them is first
   zeroed (outgoing of the lower) and then redrawn (incoming of the upper);
3. optimiser state of what was replaced.

This is the order of the released code. Random numbers come in as arguments.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from tests.reference.mlp import Params, cast, layer_names, loss_and_grads
from tests.reference.optimizers import OptState, coupled_l2, reset_moments
from tests.reference.utilities import State, Units, update_utility

RELEASED: dict[str, Any] = {
    "utility": "adaptable_contribution",
    "bias_correction": "current",
    "magnitude": "mean",
    "selection": "accumulate",
    "count": "eligible",
    "bias_compensation": False,
}
"""The released code for fully connected networks, as it behaves."""

ARXIV: dict[str, Any] = RELEASED | {
    "bias_correction": "previous",
    "magnitude": "sum",
    "bias_compensation": True,
}
"""arXiv 2108.06325v3 (fractional counts, which it leaves open, are accumulated)."""

NATURE: dict[str, Any] = RELEASED | {
    "utility": "contribution",
    "bias_correction": "none",
    "magnitude": "sum",
    "selection": "nature",
}
"""Nature 632:768-774 (2024), Algorithm 1 and Eq. 1; the arg-min is over mature units."""


def number_to_replace(
    accumulator: Any,
    eligible: np.ndarray,
    *,
    replacement_rate: float,
    selection: str = "accumulate",
    count: str = "eligible",
    max_replaced: int | None = None,
    uniform: float | None = None,
) -> tuple[int, Any]:
    """How many of the eligible units [U] bool to replace now, and the accumulator c.

    Where no unit is eligible nothing is replaced and nothing accumulates. Otherwise,
    with n the eligible ('eligible') or all units ('total', the convolutional code):
    'accumulate': c <- c + rho n; k = floor(c); c <- c - k
    'probabilistic': k = floor(rho n) if rho n >= 1, else 1 if uniform < rho n
    'nature': c <- c + rho n; if c > 1, strictly: k = 1, c <- c - 1
    k is at most the number of eligible units and `max_replaced`; what is over stays in
    c (and is lost where there is no c).
    """
    n_eligible = int(eligible.sum())
    if n_eligible == 0:
        return 0, accumulator
    n = {"eligible": n_eligible, "total": eligible.size}[count]
    cap = n_eligible if max_replaced is None else min(n_eligible, max_replaced)
    expected = replacement_rate * n
    if selection == "probabilistic":
        if uniform is None:
            raise ValueError(
                "selection 'probabilistic' needs a uniform number in [0, 1)"
            )
        k = int(expected) if expected >= 1 else int(uniform < expected)
        return min(k, cap), accumulator
    due = accumulator + expected
    if selection == "accumulate":
        k = min(int(np.floor(due)), cap)
    elif selection == "nature":
        k = min(int(due > 1), cap)
    else:
        raise ValueError(f"unknown selection {selection!r}")
    return k, due - k


def least_useful(u_hat: np.ndarray, eligible: np.ndarray, k: int) -> np.ndarray:
    """Mask [U] of the k eligible units of least u_hat; of equals the first goes."""
    candidates = np.flatnonzero(eligible)
    order = np.argsort(u_hat[candidates], kind="stable")
    chosen = np.zeros(len(eligible), bool)
    chosen[candidates[order[:k]]] = True
    return chosen


def generate(
    params: Params,
    replaced: Units,
    fresh: Units,
    f_hat: Units,
    *,
    bias_compensation: bool = False,
) -> Params:
    """New parameters in which the units of the masks `replaced` are made new.

    Incoming weights: the columns of fresh[layer] [D, U]; incoming bias 0; outgoing
    weights 0. With `bias_compensation` the next layer's bias first gains w_out f_hat
    of every unit that goes, so that only its deviation from the mean is lost. (The
    released code adds 0: its f is cleared before it is used.)
    """
    params = cast(params, params["head"]["kernel"].dtype)
    names = layer_names(params)
    for name, above in pairwise(names):
        for j in np.flatnonzero(replaced[name]):
            params[name]["kernel"][:, j] = fresh[name][:, j]
            params[name]["bias"][j] = 0
            if bias_compensation:
                params[above]["bias"] += params[above]["kernel"][j] * f_hat[name][j]
            params[above]["kernel"][j, :] = 0
    return params


def generate_and_test(
    params: Params,
    state: State,
    activations: Units,
    *,
    fresh: Units,
    replacement_rate: float = 1e-4,
    decay: float = 0.99,
    maturity: int = 100,
    utility: str = "adaptable_contribution",
    bias_correction: str = "current",
    magnitude: str = "mean",
    selection: str = "accumulate",
    count: str = "eligible",
    bias_compensation: bool = False,
    max_replaced: int | None = None,
    uniform: dict[str, float] | None = None,
    random_utility: Units | None = None,
    example_weight: np.ndarray | None = None,
) -> tuple[Params, State, Units]:
    """One generate-and-test step; new parameters, new state, masks of what was replaced.

    `params` are the updated weights, `activations` {'h1': [B, U], ...} those of before.
    A unit can be replaced when its age, this step counted, is > `maturity`. `fresh`,
    `uniform` and `random_utility` hold one entry a hidden layer. The utilities are
    also kept up to date at rate 0, where the released code does nothing at all.
    """
    state = State(*(dict(field) for field in vars(state).values()))
    replaced: Units = {}
    f_hat: Units = {}
    names = layer_names(params)
    for name, above in pairwise(names):
        u_hat, f_hat[name] = update_utility(
            state,
            name,
            activations[name],
            params[name]["kernel"],
            params[above]["kernel"],
            utility=utility,
            decay=decay,
            bias_correction=bias_correction,
            magnitude=magnitude,
            example_weight=example_weight,
            random_utility=None if random_utility is None else random_utility[name],
        )
        eligible = state.age[name] > maturity
        k, state.accumulator[name] = number_to_replace(
            state.accumulator[name],
            eligible,
            replacement_rate=replacement_rate,
            selection=selection,
            count=count,
            max_replaced=max_replaced,
            uniform=None if uniform is None else uniform[name],
        )
        replaced[name] = least_useful(u_hat, eligible, k)
    params = generate(
        params, replaced, fresh, f_hat, bias_compensation=bias_compensation
    )
    for name, mask in replaced.items():
        for field in (state.utility, state.mean_activation, state.age):
            field[name] = np.where(mask, 0, field[name]).astype(field[name].dtype)
    return params, state, replaced


class Step(NamedTuple):
    """Result of one learning step; loss and activations are those of before it."""

    params: Params
    opt_state: OptState
    state: State
    loss: float
    activations: Units
    replaced: Units


def step(
    params: Params,
    opt_state: OptState,
    state: State,
    x: Any,
    y: Any,
    *,
    optimizer: Callable[..., tuple[Params, OptState]],
    fresh: Units,
    l2: float = 0.0,
    moment_reset: str = "none",
    activation: str = "relu",
    loss: str = "cross_entropy",
    example_weight: np.ndarray | None = None,
    dtype: Any = np.float64,
    **options: Any,
) -> Step:
    """Forward, backward, optimiser step, generate-and-test (`options`), moment reset.

    `optimizer(params, grads, opt_state)` is an update with its hyper-parameters bound.
    """
    params = cast(params, dtype)
    value, activations, grads = loss_and_grads(
        params,
        x,
        y,
        example_weight=example_weight,
        activation=activation,
        loss=loss,
        dtype=dtype,
    )
    params, opt_state = optimizer(params, coupled_l2(params, grads, l2), opt_state)
    params, state, replaced = generate_and_test(
        params,
        state,
        activations,
        fresh=fresh,
        example_weight=example_weight,
        **options,
    )
    opt_state = reset_moments(opt_state, replaced, moment_reset)
    return Step(params, opt_state, state, value, activations, replaced)

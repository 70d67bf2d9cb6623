"""Generate-and-test of continual backprop on residual networks, by hand, in numpy.

A unit of a residual stream is one channel: several convolutions write it and several
modules read it. `units` are the rows of a table with `name`, `size`, `incoming` (the
modules that write the layer: its channels are the last axis of their kernels) and
`outgoing` (those that read it: second last axis; one row a unit). Kernels are
[h, w, C, U], a dense one [C, U]. Everything is float64.

Source: Dohare et al., Nature 632:768-774 (2024), Eq. 1 and Algorithm 1, and their
released code. Other than in that code, all modules that write or read a unit count, in
the utility and in the reset. Random numbers come in as arguments.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.reference.continual_backprop import least_useful, number_to_replace
from tests.reference.mlp import Params, cast
from tests.reference.utilities import State, Units


def init_state(units: Sequence[Any]) -> State:
    """Ages, utilities, mean activations [U] and numbers due () of all layers: zeros."""
    u, f, age = ({unit.name: np.zeros(unit.size) for unit in units} for _ in range(3))
    return State(u, f, age, dict.fromkeys(u, 0.0))


def outgoing_magnitude(params: Params, unit: Any) -> np.ndarray:
    """Mean |w| [U] over all weights that a unit feeds, of all readers alike (Eq. 1)."""
    total, count = np.zeros(unit.size), 0
    for name in unit.outgoing:
        by_unit = np.moveaxis(params[name]["kernel"], -2, 0).reshape(unit.size, -1)
        total += np.abs(by_unit).sum(axis=1)
        count += by_unit.shape[1]
    return total / count


def incoming_magnitude(params: Params, unit: Any) -> np.ndarray:
    """Mean |w| [U] over all weights into a unit, of all writers alike; no biases."""
    total, count = np.zeros(unit.size), 0
    for name in unit.incoming:
        by_unit = params[name]["kernel"].reshape(-1, unit.size)
        total += np.abs(by_unit).sum(axis=0)
        count += len(by_unit)
    return total / count


def instantaneous_utility(
    kind: str, h: np.ndarray, f_hat: np.ndarray, params: Params, unit: Any
) -> np.ndarray:
    """y [U] from h [N, U], all examples and positions, and f_hat [U] (Eq. 1, code)."""
    out = outgoing_magnitude(params, unit)
    if kind == "contribution":
        return out * np.abs(h).mean(axis=0)
    if kind == "adaptable_contribution":
        return out * np.abs(h - f_hat).mean(axis=0) / incoming_magnitude(params, unit)
    raise ValueError(f"unknown utility {kind!r}")


def generate(
    params: Params, stats: Params, units: Sequence[Any], replaced: Units, fresh: Units
) -> tuple[Params, Params]:
    """Parameters and statistics where the units of the masks [U] are new (Algorithm 1).

    Of every writer: the columns of fresh[module] [..., C, U], bias 0, scale 1, shift 0,
    running mean 0 and variance 1. Of every reader: rows 0, all of them before a column
    is drawn, so that a weight that joins two new units is a drawn one.
    """
    params, stats = cast(params), cast(stats)
    for unit in units:
        for name in unit.outgoing:
            params[name]["kernel"][..., replaced[unit.name], :] = 0.0
    for unit in units:
        gone = replaced[unit.name]
        for name in unit.incoming:
            params[name]["kernel"][..., gone] = fresh[name][..., gone]
            for leaf, value in (("bias", 0.0), ("scale", 1.0), ("shift", 0.0)):
                params[name][leaf][gone] = value
            stats[name]["mean"][gone], stats[name]["var"][gone] = 0.0, 1.0
    return params, stats


def generate_and_test(
    params: Any,
    stats: Any,
    state: State,
    activations: Units,
    units: Sequence[Any],
    *,
    fresh: Units,
    replacement_rate: float,
    decay: float,
    maturity: int,
    utility: str,
    bias_correction: str,
    count: str,
    max_replaced: int | None = None,
) -> tuple[Params, Params, State, Units]:
    """One step (Algorithm 1): new parameters, statistics and state, and masks [U].

    `params` and `stats` are those after the optimiser's update, `activations`
    [B, H, W, U] those of before. With a the age, this step counted, f and u are divided
    by 1 - decay^a ('current') or not ('none'). Units of age > `maturity` can be
    replaced. All layers choose before any weight changes.
    """
    if bias_correction not in ("current", "none"):
        raise ValueError(f"unknown bias_correction {bias_correction!r}")
    params = cast(params)
    state = State(*(dict(field) for field in vars(state).values()))
    replaced: Units = {}
    for unit in units:
        name = unit.name
        h = np.asarray(activations[name], np.float64).reshape(-1, unit.size)
        age = state.age[name] + 1
        kappa = 1 - decay**age if bias_correction == "current" else np.ones_like(age)
        f = decay * state.mean_activation[name] + (1 - decay) * h.mean(axis=0)
        y = instantaneous_utility(utility, h, f / kappa, params, unit)
        u = decay * state.utility[name] + (1 - decay) * y
        eligible = age > maturity
        k, state.accumulator[name] = number_to_replace(
            state.accumulator[name], eligible, replacement_rate=replacement_rate,
            count=count, max_replaced=max_replaced,
        )  # fmt: skip
        replaced[name] = least_useful(u / kappa, eligible, k)
        state.utility[name] = np.where(replaced[name], 0, u)
        state.mean_activation[name] = np.where(replaced[name], 0, f)
        state.age[name] = np.where(replaced[name], 0, age)
    params, stats = generate(params, stats, units, replaced, fresh)
    return params, stats, state, replaced

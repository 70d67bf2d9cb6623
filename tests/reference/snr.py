"""Self-normalised resets, SNR (Farias & Jozefiak, ICLR 2025; released variant).

Every hidden unit has an age a (examples since it last fired), a histogram H of ages
and a threshold T. One step:

1. forward: a unit that fired (any pre-activation > 0 in the batch, and in space) adds
   its age to H, then a <- 0; any other has a <- a + batch size;
2. optimiser step;
3. units with a >= T add their age to H, are reset (see `resets`), and a <- 0;
4. every `period` steps: q = the eta-percentile of H without age 0;
   T <- q if q < T, else 2 T; T is clipped to [tau_min, tau_max]; H <- 0.

Choices: ages above tau_max count in the last bin; q is the least age x with
P(age <= x) >= eta, no interpolation; T starts at tau_max unless told, for no unit can
then be cut short before its ages are known; step t counts from 1, and the update of T
comes last in the step. A unit that fired in every batch has only ages of 0: q is NaN in
the released code and T becomes tau_min (`empty` 'floor'); 'keep' leaves T as it is.
tau_min is 100 in the code (its batch size). Moments of what was reset go to 0.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.reference.mlp import Params, cast
from tests.reference.optimizers import OptState
from tests.reference.resets import Masks, reset_moments, reset_units

State = dict[str, Any]


def init(
    params: Params, *, tau_max: int = 20_000, threshold: float | None = None
) -> State:
    """Ages 0, empty histograms [U, tau_max + 1], thresholds; the step count."""
    sizes = {n: len(layer["bias"]) for n, layer in params.items() if n != "head"}
    start = tau_max if threshold is None else threshold
    return {
        "age": {n: np.zeros(u) for n, u in sizes.items()},
        "histogram": {n: np.zeros((u, tau_max + 1)) for n, u in sizes.items()},
        "threshold": {n: np.full(u, float(start)) for n, u in sizes.items()},
        "count": 0,
    }


def record(histogram: np.ndarray, age: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The histogram with one more entry for every unit of the mask."""
    histogram = histogram.copy()
    units = np.flatnonzero(mask)
    bins = np.minimum(age, histogram.shape[1] - 1).astype(int)
    histogram[units, bins[units]] += 1
    return histogram


def percentile(histogram: np.ndarray, eta: float) -> np.ndarray:
    """q [U]: least age >= 1 with share >= eta of the ages >= 1; NaN where none is."""
    counts = histogram[:, 1:]
    total = counts.sum(axis=1)
    reached = np.cumsum(counts, axis=1) >= eta * total[:, None]
    return np.where(total > 0, 1 + np.argmax(reached, axis=1), np.nan)


def new_threshold(
    threshold: np.ndarray,
    histogram: np.ndarray,
    *,
    eta: float = 0.99,
    tau_min: float = 100,
    empty: str = "floor",
) -> np.ndarray:
    """T [U] after an update; tau_max is the last bin of the histogram."""
    q = percentile(histogram, eta)
    new = np.where(q < threshold, q, 2 * threshold)
    new = np.clip(new, tau_min, histogram.shape[1] - 1)
    return np.where(np.isnan(q), tau_min if empty == "floor" else threshold, new)


def step(
    params: Params,
    grads: Params,
    opt_state: OptState,
    state: State,
    pre_activations: dict[str, np.ndarray],
    fresh: Params,
    *,
    optimizer: Callable[..., tuple[Params, OptState]],
    period: int,
    eta: float = 0.99,
    tau_min: float = 100,
    empty: str = "floor",
) -> tuple[Params, OptState, State, Masks]:
    """One step; pre_activations {'h1': [B, ..., U], ...} are those before the update."""
    params, opt_state = optimizer(cast(params), grads, opt_state)
    count = state["count"] + 1
    age, histogram, threshold, masks = {}, {}, {}, {}
    for name, z in pre_activations.items():
        fired = np.any(z > 0, axis=tuple(range(z.ndim - 1)))
        history = record(state["histogram"][name], state["age"][name], fired)
        now = np.where(fired, 0, state["age"][name] + len(z))
        masks[name] = now >= state["threshold"][name]
        histogram[name] = record(history, now, masks[name])
        age[name] = np.where(masks[name], 0, now)
        threshold[name] = state["threshold"][name]
        if count % period == 0:
            threshold[name] = new_threshold(
                threshold[name], histogram[name], eta=eta, tau_min=tau_min, empty=empty
            )
            histogram[name] = np.zeros_like(histogram[name])
    state = {
        "age": age,
        "histogram": histogram,
        "threshold": threshold,
        "count": count,
    }
    params = reset_units(params, masks, fresh)
    return params, reset_moments(opt_state, masks), state, masks
